/* workload: blocked_receive; kind: blocked; user: any; about: recv, recvmsg, send, accept on Unix sockets, with and without SO_RCVTIMEO */
#include "blocked.h"

static int pairs[5][2], listener, timed_listener;
static char received[2][64];
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t length;

static long do_recv(void) { return recv(pairs[0][0], received[0], 64, 0); }
static long do_recvmsg(void)
{
    struct iovec vector = {received[1], 64};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    return recvmsg(pairs[1][0], &message, 0);
}
static long do_recv_timed(void)
{
    char byte;
    return recv(pairs[2][0], &byte, 1, 0);
}
static long do_read_timed(void)
{
    char byte;
    return read(pairs[2][0], &byte, 1);
}
static long do_accept(void)
{
    int fd = accept(listener, NULL, NULL);
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : -1;
}
static long do_accept_timed(void) { return accept(timed_listener, NULL, NULL); }
static long do_send(void) { return send(pairs[3][0], "late", 4, 0); }
static long do_send_timed(void) { return send(pairs[4][0], "late", 4, 0); }

static void wake(void)
{
    EQUAL(send(pairs[0][1], "hello", 5, 0), 5, "send");
    EQUAL(send(pairs[1][1], "world", 5, 0), 5, "send");
    int fd = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT(connect(fd, (struct sockaddr *)&address, length));
    char byte[4096];
    while (recv(pairs[3][1], byte, sizeof byte, MSG_DONTWAIT) > 0)
        ;
    close(fd);
}

static void fill_socket(int fd)
{
    char bytes[1024] = {0};
    while (send(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

static int listening(const char *name)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    int count = snprintf(own.sun_path + 1, sizeof own.sun_path - 1, "%s-%d-%d", name, getpid(), getuid());
    int fd = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)count);
    MUST(bind(fd, (struct sockaddr *)&own, length));
    MUST(listen(fd, 5));
    address = own;
    return fd;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < 5; i++)
        MUST(socketpair(AF_UNIX, i == 1 ? SOCK_SEQPACKET : i >= 3 ? SOCK_DGRAM : SOCK_STREAM, 0, pairs[i]));
    struct timeval time = {2, 0};
    timed_listener = listening("blocked-timed");
    listener = listening("blocked");
    MUST(setsockopt(pairs[2][0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    MUST(setsockopt(timed_listener, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    MUST(setsockopt(pairs[4][0], SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time));
    fill_socket(pairs[3][0]);
    fill_socket(pairs[4][0]);
    struct blocked list[] = {
        {.name = "recv", .call = do_recv, .expected = 5},
        {.name = "recvmsg", .call = do_recvmsg, .expected = 5},
        {.name = "recv, timed", .call = do_recv_timed, .timeout = 2, .expected = -1, .expected_errno = EAGAIN},
        {.name = "read of a socket, timed", .call = do_read_timed, .timeout = 2, .expected = -1, .expected_errno = EAGAIN},
        {.name = "accept", .call = do_accept},
        {.name = "accept, timed", .call = do_accept_timed, .timeout = 2, .expected = -1, .expected_errno = EAGAIN},
        {.name = "send", .call = do_send, .expected = 4},
        {.name = "send, timed", .call = do_send_timed, .timeout = 2, .expected = -1, .expected_errno = EAGAIN}};
    BLOCKED_ALL(list, wake);
    CHECK(memcmp(received[0], "hello", 5) == 0, "recv: what was received differs");
    CHECK(memcmp(received[1], "world", 5) == 0, "recvmsg: what was received differs");
    return end();
}
