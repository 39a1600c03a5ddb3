/* workload: pidfd; kind: file; user: any; about: pidfds of itself, of children, of a thread's process, of an ended child */
#include "workload.h"

#ifndef PIDFD_NONBLOCK
#define PIDFD_NONBLOCK O_NONBLOCK
#endif

static void idle(void *unused)
{
    (void)unused;
    while (running())
        ;
}

static int about(int fd)
{
    char *path = formatted("/proc/self/fdinfo/%d", fd), *text = field(path, "Pid:");
    int pid = atoi(text);
    free(path), free(text);
    return pid;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t living = child(idle, NULL), ended = child(idle, NULL);
    int self = (int)MUST(syscall(SYS_pidfd_open, getpid(), 0));
    int first = (int)MUST(syscall(SYS_pidfd_open, living, PIDFD_NONBLOCK)), second = (int)MUST(syscall(SYS_pidfd_open, ended, 0));
    siginfo_t info;
    MUST(kill(ended, SIGTERM));
    MUST(waitid(P_PID, (id_t)ended, &info, WEXITED | WNOWAIT));
    ready();
    while (running())
        ;
    EQUAL(about(self), getpid(), "process of a pidfd of itself");
    EQUAL(about(first), living, "process of a child's pidfd");
    EQUAL(fcntl(first, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "flags");
    EQUAL(fcntl(first, F_GETFD), FD_CLOEXEC, "descriptor flags");
    struct pollfd set[2] = {{first, POLLIN, 0}, {second, POLLIN, 0}};
    EQUAL(poll(set, 2, 0), 1, "ended processes");
    EQUAL(set[1].revents & POLLIN, POLLIN, "ended process");
    EQUAL(waitid((idtype_t)3 /* P_PIDFD */, (id_t)second, &info, WEXITED), 0, "waitid of an ended child");
    EQUAL(info.si_pid, ended, "si_pid");
    EQUAL(syscall(SYS_pidfd_send_signal, second, 0, NULL, 0), -1, "signal to a child that has been waited for");
    EQUAL(syscall(SYS_pidfd_send_signal, first, SIGTERM, NULL, 0), 0, "signal to a child");
    EQUAL(poll(set, 1, 5000), 1, "end of a child");
    collect(living);
    return end();
}
