/* workload: socket_stream; kind: socket; user: any; about: Unix stream pairs with unread bytes both ways, half closed, closed by the peer, options, buffer sizes */
#include "workload.h"

#define PAIRS 5
static int pairs[PAIRS][2];

static void echo(void *unused)
{
    (void)unused;
    char buffer[1000];
    ssize_t got;
    while ((got = recv(pairs[4][1], buffer, sizeof buffer, 0)) > 0)
        if (buffer[0] == 'Q')
            break;
        else
            EQUAL(send(pairs[4][1], buffer, (size_t)got, 0), got, "send");
}

static int option(int fd, int which)
{
    int value = -1;
    socklen_t length = sizeof value;
    EXPECT(getsockopt(fd, SOL_SOCKET, which, &value, &length));
    return value;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    static char bytes[100 * KIB], now[100 * KIB];
    for (int i = 0; i < PAIRS; i++)
        MUST(socketpair(AF_UNIX, SOCK_STREAM | (i == 1 ? SOCK_NONBLOCK | SOCK_CLOEXEC : 0), 0, pairs[i]));
    fill(bytes, sizeof bytes, 1);
    for (size_t done = 0; done < sizeof bytes;)
        done += (size_t)MUST(send(pairs[0][0], bytes + done, sizeof bytes - done < 5000 ? sizeof bytes - done : 5000, 0));
    EQUAL(send(pairs[0][1], "other way", 9, 0), 9, "send");
    char skipped[123];
    EQUAL(recv(pairs[0][1], skipped, 123, 0), 123, "recv"); /* a part of a message is gone */
    int peek = 0, size = 50000, one = 1;
    MUST(setsockopt(pairs[1][0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
    MUST(setsockopt(pairs[1][0], SOL_SOCKET, SO_PASSCRED, &one, sizeof one));
    MUST(setsockopt(pairs[1][1], SOL_SOCKET, SO_PEEK_OFF, &peek, sizeof peek));
    struct timeval time = {7, 0}, time_now;
    MUST(setsockopt(pairs[1][0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    struct linger linger = {1, 13}, linger_now;
    MUST(setsockopt(pairs[1][0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    EQUAL(send(pairs[2][0], "last words", 10, 0), 10, "send");
    MUST(shutdown(pairs[2][0], SHUT_WR));
    EQUAL(send(pairs[3][0], "left behind", 11, 0), 11, "send");
    MUST(close(pairs[3][0])); /* the peer is gone, its words are not */
    pid_t pid = child(echo, NULL);
    int send_size = option(pairs[1][0], SO_SNDBUF), receive_size = option(pairs[1][0], SO_RCVBUF);
    ready();
    uint64_t round = 0;
    while (running()) {
        uint64_t seen = 0;
        round += 256;
        EQUAL(send(pairs[4][0], &round, 8, 0), 8, "send");
        EQUAL(recv(pairs[4][0], &seen, 8, MSG_WAITALL), 8, "recv");
        EQUAL(seen, round, "echo");
    }
    int unread = 0;
    EXPECT(ioctl(pairs[0][1], FIONREAD, &unread));
    EQUAL(unread, sizeof bytes - 123, "unread bytes");
    EQUAL(recv(pairs[0][1], now, sizeof now, MSG_WAITALL | MSG_DONTWAIT), sizeof bytes - 123, "recv");
    CHECK(memcmp(now, bytes + 123, sizeof bytes - 123) == 0, "unread bytes differ");
    EQUAL(recv(pairs[0][0], now, sizeof now, MSG_DONTWAIT), 9, "recv of the other way");
    CHECK(memcmp(now, "other way", 9) == 0, "bytes of the other way differ");
    EQUAL(option(pairs[1][0], SO_SNDBUF), send_size, "SO_SNDBUF");
    EQUAL(option(pairs[1][0], SO_RCVBUF), receive_size, "SO_RCVBUF");
    EQUAL(option(pairs[1][0], SO_PASSCRED), 1, "SO_PASSCRED");
    EQUAL(option(pairs[1][1], SO_PASSCRED), 0, "SO_PASSCRED of the peer");
    EQUAL(option(pairs[1][1], SO_PEEK_OFF), 0, "SO_PEEK_OFF");
    EQUAL(option(pairs[0][0], SO_PEEK_OFF), -1, "SO_PEEK_OFF of another");
    socklen_t length = sizeof time_now;
    EXPECT(getsockopt(pairs[1][0], SOL_SOCKET, SO_RCVTIMEO, &time_now, &length));
    EQUAL(time_now.tv_sec, 7, "SO_RCVTIMEO");
    length = sizeof linger_now;
    EXPECT(getsockopt(pairs[1][0], SOL_SOCKET, SO_LINGER, &linger_now, &length));
    EQUAL(linger_now.l_onoff * 100 + linger_now.l_linger, 113, "SO_LINGER");
    EQUAL(fcntl(pairs[1][0], F_GETFL) & O_NONBLOCK, O_NONBLOCK, "O_NONBLOCK");
    EQUAL(fcntl(pairs[1][1], F_GETFD), FD_CLOEXEC, "descriptor flags");
    EQUAL(recv(pairs[2][1], now, 64, 0), 10, "recv");
    EQUAL(recv(pairs[2][1], now, 64, 0), 0, "recv after the peer's shutdown");
    EQUAL(send(pairs[2][0], "x", 1, MSG_NOSIGNAL), -1, "send after shutdown");
    EQUAL(send(pairs[2][1], "back", 4, 0), 4, "send to a peer that has shut down writing");
    EQUAL(recv(pairs[2][0], now, 64, 0), 4, "recv after own shutdown");
    EQUAL(recv(pairs[3][1], now, 64, 0), 11, "recv from a closed peer");
    CHECK(memcmp(now, "left behind", 11) == 0, "words of a closed peer differ");
    EQUAL(recv(pairs[3][1], now, 64, 0), 0, "recv from a closed peer");
    EQUAL(send(pairs[3][1], "x", 1, MSG_NOSIGNAL), -1, "send to a closed peer");
    EQUAL(send(pairs[4][0], "Q", 1, 0), 1, "send");
    collect(pid);
    return end();
}
