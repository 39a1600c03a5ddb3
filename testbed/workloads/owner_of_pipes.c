/* workload: owner_of_pipes; kind: file; user: any; about: F_SETOWN_EX, F_SETSIG and O_ASYNC of pipes; an end that nobody holds causes no signal */
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
    int ends[2], pair[2], group[2], idle[2], alone[2];
    MUST(pipe(ends));
    MUST(pipe(group));
    MUST(pipe(idle));
    MUST(pipe(pair));
    MUST(fcntl(ends[0], F_SETOWN, getpid()));
    MUST(fcntl(ends[0], F_SETSIG, SIGRTMIN + 6));
    MUST(fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    struct f_owner_ex owner = {F_OWNER_TID, gettid()}, now;
    MUST(fcntl(pair[0], F_SETOWN_EX, &owner));
    MUST(fcntl(pair[0], F_SETSIG, SIGRTMIN + 7));
    MUST(fcntl(pair[0], F_SETFL, O_ASYNC));
    MUST(fcntl(group[0], F_SETOWN, -getpgrp()));
    MUST(pipe(alone));
    MUST(write(alone[1], "x", 1));
    MUST(close(alone[1])); /* hung up before it had an owner: no signal is pending, and the move causes none */
    MUST(fcntl(alone[0], F_SETOWN, getpid()));
    MUST(fcntl(alone[0], F_SETSIG, SIGRTMIN + 6));
    MUST(fcntl(alone[0], F_SETFL, O_ASYNC));
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
    EQUAL(sigtimedwait(&blocked, &info, &second), SIGRTMIN + 7, "signal of a second pipe");
    EQUAL(info.si_fd, pair[0], "descriptor of the signal");
    return end();
}
