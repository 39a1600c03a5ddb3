/* workload: socket_packets; kind: socket; user: any; about: Unix datagram and seqpacket pairs: boundaries of what is unread, an empty message, senders */
#include "workload.h"

static socklen_t abstract(struct sockaddr_un *address, const char *name)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int count = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "%s-%d-%d", name, getpid(), getuid());
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)count);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int types[] = {SOCK_DGRAM, SOCK_SEQPACKET}, pairs[2][2];
    size_t sizes[] = {1, 1000, 3, 4096, 0, 9000, 77};
    static char bytes[16 * KIB], now[16 * KIB];
    for (int k = 0; k < 2; k++) {
        MUST(socketpair(AF_UNIX, types[k], 0, pairs[k]));
        for (size_t i = 0; i < COUNT(sizes); i++) {
            fill(bytes, sizes[i], i + (uint64_t)k * 100);
            EQUAL(send(pairs[k][0], bytes, sizes[i], 0), sizes[i], "send");
        }
        EQUAL(send(pairs[k][1], "back", 4, 0), 4, "send");
    }
    /* A named receiver with senders that are named, nameless, and gone. */
    struct sockaddr_un receiver_address, sender_address, seen;
    socklen_t receiver_length = abstract(&receiver_address, "receiver"), sender_length = abstract(&sender_address, "sender");
    int receiver = MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), sender = MUST(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int gone = MUST(socket(AF_UNIX, SOCK_DGRAM, 0)), nameless = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(bind(receiver, (struct sockaddr *)&receiver_address, receiver_length));
    MUST(bind(sender, (struct sockaddr *)&sender_address, sender_length));
    MUST(connect(nameless, (struct sockaddr *)&receiver_address, receiver_length));
    MUST(sendto(sender, "named", 5, 0, (struct sockaddr *)&receiver_address, receiver_length));
    MUST(send(nameless, "nameless", 8, 0));
    MUST(sendto(gone, "gone", 4, 0, (struct sockaddr *)&receiver_address, receiver_length));
    MUST(close(gone));
    ready();
    while (running())
        ;
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            EQUAL(recv(pairs[k][1], now, sizeof now, MSG_DONTWAIT), sizes[i], "size of a message");
            fill(bytes, sizes[i], i + (uint64_t)k * 100);
            CHECK(memcmp(now, bytes, sizes[i]) == 0, "message %zu differs", i);
        }
        EQUAL(recv(pairs[k][1], now, sizeof now, MSG_DONTWAIT), -1, "a message too many");
        EQUAL(recv(pairs[k][0], now, sizeof now, MSG_DONTWAIT), 4, "message of the other way");
        EQUAL(send(pairs[k][0], "new", 3, 0), 3, "send");
        EQUAL(recv(pairs[k][1], now, sizeof now, MSG_DONTWAIT), 3, "message sent after");
        int type = 0;
        socklen_t length = sizeof type;
        EXPECT(getsockopt(pairs[k][0], SOL_SOCKET, SO_TYPE, &type, &length));
        EQUAL(type, types[k], "type");
    }
    socklen_t length = sizeof seen;
    EQUAL(recvfrom(receiver, now, sizeof now, MSG_DONTWAIT, (struct sockaddr *)&seen, &length), 5, "message of a named sender");
    EQUAL(length, sender_length, "length of the sender's name");
    CHECK(memcmp(&seen, &sender_address, sender_length) == 0, "name of the sender differs");
    length = sizeof seen;
    EQUAL(recvfrom(receiver, now, sizeof now, MSG_DONTWAIT, (struct sockaddr *)&seen, &length), 8, "message of a nameless sender");
    CHECK(memcmp(now, "nameless", 8) == 0, "message of a nameless sender differs");
    EQUAL(length <= sizeof(sa_family_t), 1, "name of a nameless sender");
    EQUAL(recvfrom(receiver, now, sizeof now, MSG_DONTWAIT, NULL, NULL), 4, "message of a sender that is gone");
    EQUAL(send(nameless, "again", 5, 0), 5, "send by a connected sender");
    EQUAL(recv(receiver, now, sizeof now, MSG_DONTWAIT), 5, "message sent after");
    length = sizeof seen;
    EXPECT(getsockname(receiver, (struct sockaddr *)&seen, &length));
    EQUAL(length, receiver_length, "length of own name");
    CHECK(memcmp(&seen, &receiver_address, length) == 0, "own name differs");
    length = sizeof seen;
    EXPECT(getpeername(nameless, (struct sockaddr *)&seen, &length));
    CHECK(length == receiver_length && memcmp(&seen, &receiver_address, length) == 0, "name of the peer differs");
    return end();
}
