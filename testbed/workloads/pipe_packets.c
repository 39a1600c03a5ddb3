/* workload: pipe_packets; kind: file; user: any; about: a pipe in packet mode keeps the boundaries of what is unread */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    int ends[2];
    size_t sizes[] = {1, 100, 4096, 7, 2000, 4095, 3};
    char bytes[PAGE], now[2 * PAGE];
    MUST(pipe2(ends, O_DIRECT | O_CLOEXEC));
    for (size_t i = 0; i < COUNT(sizes); i++) {
        fill(bytes, sizes[i], i);
        EQUAL(write(ends[1], bytes, sizes[i]), sizes[i], "write");
    }
    int capacity = fcntl(ends[1], F_GETPIPE_SZ);
    ready();
    while (running())
        ;
    EQUAL(fcntl(ends[1], F_GETPIPE_SZ), capacity, "size");
    EQUAL(fcntl(ends[1], F_GETFL) & O_DIRECT, O_DIRECT, "packet mode");
    EXPECT(fcntl(ends[0], F_SETFL, O_NONBLOCK)); /* a lost packet is told, not waited for */
    for (size_t i = 0; i < COUNT(sizes); i++) {
        /* A short read takes a whole packet. */
        size_t room = i == 2 ? 1000 : sizeof now;
        EQUAL(read(ends[0], now, room), sizes[i] < room ? sizes[i] : room, "size of a packet");
        verify_fill(now, sizes[i] < room ? sizes[i] / 8 * 8 : room, i, "packet");
    }
    EQUAL(read(ends[0], now, sizeof now), -1, "a packet too many");
    EQUAL(write(ends[1], "ab", 2), 2, "write");
    EQUAL(write(ends[1], "c", 1), 1, "write");
    EQUAL(read(ends[0], now, 10), 2, "packet written after");
    return end();
}
