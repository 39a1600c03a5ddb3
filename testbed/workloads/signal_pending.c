/* workload: signal_pending; kind: signal; user: any; about: blocked signals from kill, tgkill, an ended child and a fault, with who sent them */
#include "workload.h"

static pid_t root;

static void send_all(void *argument)
{
    (void)argument;
    kill(root, SIGUSR1);
    kill(root, SIGUSR1); /* a second is not kept */
    syscall(SYS_tgkill, root, root, SIGUSR2);
    _exit(33);
}

/* The kernel's own call: the C library's makes SI_USER of SI_TKILL. */
static int taken(const sigset_t *set, siginfo_t *info)
{
    struct timespec none = {0, 0};
    return (int)syscall(SYS_rt_sigtimedwait, set, info, &none, 8);
}

static void take(int signal, int code, pid_t pid, int status)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (taken(&one, &info) != signal) {
        fail("signal %d is lost", signal);
        return;
    }
    EQUAL(info.si_code, code, "si_code");
    EQUAL(info.si_pid, pid, "si_pid");
    EQUAL(info.si_uid, getuid(), "si_uid");
    if (signal == SIGCHLD)
        EQUAL(info.si_status, status, "si_status");
    EQUAL(taken(&one, &info), -1, "the same signal again");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    root = getpid();
    sigset_t blocked;
    sigemptyset(&blocked);
    int signals[] = {SIGUSR1, SIGUSR2, SIGCHLD, SIGTERM, SIGPIPE, SIGWINCH};
    for (size_t i = 0; i < COUNT(signals); i++)
        sigaddset(&blocked, signals[i]);
    MUST(sigprocmask(SIG_SETMASK, &blocked, NULL));
    pid_t pid = child(send_all, NULL);
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED)); /* ended and waited for: only its signals are left */
    int ends[2];
    MUST(pipe2(ends, O_CLOEXEC));
    close(ends[0]);
    EQUAL(write(ends[1], "x", 1), -1, "write to a pipe without reader");
    close(ends[1]);
    ready();
    while (running())
        ;
    take(SIGUSR1, SI_USER, pid, 0);
    take(SIGUSR2, SI_TKILL, pid, 0);
    take(SIGCHLD, CLD_EXITED, pid, 33);
    take(SIGPIPE, SI_USER, getpid(), 0);
    sigset_t now;
    sigpending(&now);
    sigdelset(&now, SIGTERM);
    CHECK(*(unsigned long *)&now == 0, "a signal too many: %016lx", *(unsigned long *)&now);
    return end();
}
