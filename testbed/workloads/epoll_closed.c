/* workload: epoll_closed; kind: file; user: any; about: an epoll set whose members' descriptors are closed or mean something else by now */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    int set = MUST(epoll_create1(0)), first[2], second[2], third[2];
    MUST(pipe(first));
    MUST(pipe(second));
    MUST(pipe(third));
    struct epoll_event events[8], event = {.events = EPOLLIN, .data.u64 = 1};
    int kept = MUST(fcntl(first[0], F_DUPFD, 100)), other = MUST(fcntl(second[0], F_DUPFD, 100));
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, first[0], &event));
    event.data.u64 = 2;
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, second[0], &event));
    MUST(close(first[0]));              /* a closed number, the file lives on */
    MUST(dup2(third[0], second[0]));    /* the number means another file now */
    event.data.u64 = 3;
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, second[0], &event)); /* and is a member as such, too */
    ready();
    while (running())
        ;
    EQUAL(epoll_wait(set, events, 8, 0), 0, "events before anything was written");
    EQUAL(write(first[1], "a", 1), 1, "write");
    EQUAL(epoll_wait(set, events, 8, 0), 1, "events");
    EQUAL(events[0].data.u64, 1, "member with a closed number");
    EQUAL(write(second[1], "b", 1), 1, "write");
    EQUAL(write(third[1], "c", 1), 1, "write");
    int number = epoll_wait(set, events, 8, 0);
    uint64_t seen = 0;
    for (int i = 0; i < number; i++)
        seen |= 1UL << events[i].data.u64;
    EQUAL(seen, 1 << 1 | 1 << 2 | 1 << 3, "members told");
    close(kept);
    close(other);
    EQUAL(epoll_wait(set, events, 8, 0), 1, "events after the last descriptors of two members were closed");
    EQUAL(events[0].data.u64, 3, "member that is left");
    return end();
}
