/* workload: signal_queue; kind: signal; user: any; about: blocked signals waiting with their values, in order, for the process and for each thread */
#include "workload.h"

#define PROCESS 20
#define THREAD 12
static atomic_int up, stop;
static pid_t other_id;

static void queue(pid_t thread_id, int signal, int code, int value)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = signal;
    info.si_code = code;
    info.si_pid = 30000 + value;
    info.si_uid = (uid_t)(70000 + value);
    info.si_value.sival_ptr = (void *)(0x1234567800000000UL + (unsigned long)value);
    if (thread_id)
        MUST(syscall(SYS_rt_tgsigqueueinfo, getpid(), thread_id, signal, &info));
    else
        MUST(syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info));
}

/* The kernel's own call: the C library's makes SI_USER of SI_TKILL. */
static int taken(const sigset_t *set, siginfo_t *info)
{
    struct timespec none = {0, 0};
    return (int)syscall(SYS_rt_sigtimedwait, set, info, &none, 8);
}

static void take(int signal, int code, int value, const char *what)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal);
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (taken(&one, &info) != signal) {
        fail("%s: signal %d with value %d is lost", what, signal, value);
        return;
    }
    CHECK(info.si_code == code && info.si_pid == 30000 + value && info.si_uid == (uid_t)(70000 + value) &&
              info.si_value.sival_ptr == (void *)(0x1234567800000000UL + (unsigned long)value),
          "%s: signal %d: code %d pid %d uid %u value %p, should have code %d and value %d", what, signal, info.si_code,
          info.si_pid, info.si_uid, info.si_value.sival_ptr, code, value);
}

static int code_of(int i) { return i % 3 ? SI_QUEUE : -60 - i; }

static void queue_for_thread(int first)
{
    for (int i = 0; i < THREAD; i++)
        queue(gettid(), SIGRTMIN + i % 3, code_of(i), first + i);
    queue(gettid(), SIGUSR1, SI_QUEUE, first + 100);
}

static void take_for_thread(int first, const char *what)
{
    for (int signal = 0; signal < 3; signal++)
        for (int i = signal; i < THREAD; i += 3)
            take(SIGRTMIN + signal, code_of(i), first + i, what);
    take(SIGUSR1, SI_QUEUE, first + 100, what);
}

static void *other(void *unused)
{
    (void)unused;
    other_id = gettid();
    queue_for_thread(500);
    up = 1;
    while (!stop)
        sleep_seconds(0.001);
    take_for_thread(500, "second thread");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t all;
    sigfillset(&all);
    MUST(sigprocmask(SIG_SETMASK, &all, NULL));
    pthread_t thread_id = thread(other, NULL);
    while (!up)
        sched_yield();
    for (int i = 0; i < PROCESS; i++)
        queue(0, SIGRTMIN + 5 + i % 4, code_of(i), i);
    queue(0, SIGUSR2, SI_QUEUE, 200);
    queue_for_thread(300);
    sigset_t before, now;
    sigpending(&before);
    ready();
    while (running())
        ;
    sigpending(&now);
    sigdelset(&now, SIGTERM);
    CHECK(memcmp(&now, &before, 8) == 0, "pending signals: %016lx, were %016lx", *(unsigned long *)&now, *(unsigned long *)&before);
    for (int signal = 0; signal < 4; signal++)
        for (int i = signal; i < PROCESS; i += 4)
            take(SIGRTMIN + 5 + signal, code_of(i), i, "process");
    take(SIGUSR2, SI_QUEUE, 200, "process");
    take_for_thread(300, "first thread");
    stop = 1;
    pthread_join(thread_id, NULL);
    sigpending(&now);
    sigdelset(&now, SIGTERM);
    CHECK(*(unsigned long *)&now == 0, "a signal too many: %016lx", *(unsigned long *)&now);
    return end();
}
