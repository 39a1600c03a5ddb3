/* workload: signal_many; kind: signal; user: any; about: thousands of signals that wait, for the process and for a thread, in order */
#include "workload.h"

#define MANY 3000

static void queue(pid_t thread_id, int signal, int value)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = signal;
    info.si_code = SI_QUEUE;
    info.si_value.sival_int = value;
    if (thread_id)
        MUST(syscall(SYS_rt_tgsigqueueinfo, getpid(), thread_id, signal, &info));
    else
        MUST(syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info));
}

static void take_all(int signal, const char *what)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    struct timespec none = {0, 0};
    siginfo_t info;
    for (int i = 0; i < MANY; i++) {
        if (sigtimedwait(&one, &info, &none) != signal) {
            fail("%s: of %d signals %d were there", what, MANY, i);
            return;
        }
        EQUAL(info.si_value.sival_int, i, what);
    }
    EQUAL(sigtimedwait(&one, &info, &none), -1, "a signal too many");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t two;
    sigemptyset(&two);
    sigaddset(&two, SIGRTMIN);
    sigaddset(&two, SIGRTMIN + 1);
    MUST(sigprocmask(SIG_BLOCK, &two, NULL));
    for (int i = 0; i < MANY; i++) {
        queue(0, SIGRTMIN, i);
        queue(gettid(), SIGRTMIN + 1, i);
    }
    ready();
    while (running())
        ;
    take_all(SIGRTMIN, "signals of the process");
    take_all(SIGRTMIN + 1, "signals of the thread");
    return end();
}
