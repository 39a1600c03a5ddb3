/* workload: descriptor_owner; kind: file; user: any; about: F_SETOWN, F_SETOWN_EX, F_SETSIG and O_ASYNC of pipes and sockets */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGIO);
    sigaddset(&blocked, SIGRTMIN + 6);
    sigaddset(&blocked, SIGRTMIN + 7);
    MUST(sigprocmask(SIG_BLOCK, &blocked, NULL));
    int ends[2], pair[2], group[2], idle[2];
    MUST(pipe(ends));
    MUST(pipe(group));
    MUST(pipe(idle));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(fcntl(ends[0], F_SETOWN, getpid()));
    MUST(fcntl(ends[0], F_SETSIG, SIGRTMIN + 6));
    MUST(fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    struct f_owner_ex owner = {F_OWNER_TID, gettid()}, now;
    MUST(fcntl(pair[0], F_SETOWN_EX, &owner));
    MUST(fcntl(pair[0], F_SETSIG, SIGRTMIN + 7));
    MUST(fcntl(pair[0], F_SETFL, O_ASYNC));
    MUST(fcntl(group[0], F_SETOWN, -getpgrp()));
    ready();
    while (running())
        ;
    EQUAL(fcntl(ends[0], F_GETOWN), getpid(), "owner");
    EQUAL(fcntl(ends[0], F_GETSIG), SIGRTMIN + 6, "signal");
    EQUAL(fcntl(ends[0], F_GETFL) & (O_ASYNC | O_NONBLOCK), O_ASYNC | O_NONBLOCK, "flags");
    EXPECT(fcntl(pair[0], F_GETOWN_EX, &now));
    EQUAL(now.type, F_OWNER_TID, "type of owner");
    EQUAL(now.pid, gettid(), "owner");
    EXPECT(fcntl(group[0], F_GETOWN_EX, &now));
    EQUAL(now.type, F_OWNER_PGRP, "type of owner");
    EQUAL(now.pid, getpgrp(), "owner");
    EXPECT(fcntl(idle[0], F_GETOWN_EX, &now));
    EQUAL(now.pid, 0, "owner of a pipe without one");
    struct timespec none = {0, 0}, second = {1, 0};
    siginfo_t info;
    EQUAL(sigtimedwait(&blocked, &info, &none), -1, "a signal that nobody caused");
    EQUAL(write(ends[1], "x", 1), 1, "write");
    EQUAL(sigtimedwait(&blocked, &info, &second), SIGRTMIN + 6, "signal of a pipe");
    EQUAL(info.si_fd, ends[0], "descriptor of the signal");
    EQUAL(write(pair[1], "x", 1), 1, "write");
    EQUAL(sigtimedwait(&blocked, &info, &second), SIGRTMIN + 7, "signal of a socket");
    EQUAL(info.si_fd, pair[0], "descriptor of the signal");
    return end();
}
