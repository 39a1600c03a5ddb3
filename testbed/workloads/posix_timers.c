/* workload: posix_timers; kind: clock; user: any; about: POSIX timers: ids with gaps, clocks, ways to notify, remaining times, overruns */
#include "workload.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static const struct { clockid_t clock; int notify, signal; long value, interval; } plans[] = {
    {CLOCK_REALTIME, SIGEV_SIGNAL, 40, 1000, 100},  {CLOCK_MONOTONIC, SIGEV_SIGNAL, 41, 2000, 0},
    {CLOCK_BOOTTIME, SIGEV_NONE, 0, 3000, 7},       {CLOCK_MONOTONIC, SIGEV_THREAD_ID, 42, 4000, 50},
    {CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, 43, 5000, 9}, {CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, 44, 600, 1},
    {CLOCK_REALTIME, SIGEV_NONE, 0, 0, 0} /* never armed */};
#define SLOW COUNT(plans)
static int ids[SLOW], fast;

static int make(clockid_t clock, int notify, int signal, int value)
{
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = notify;
    event.sigev_signo = signal;
    event.sigev_value.sival_int = value;
    if (notify == SIGEV_THREAD_ID)
        event.sigev_notify_thread_id = gettid();
    int id;
    MUST(syscall(SYS_timer_create, clock, &event, &id));
    return id;
}

static double seconds(struct timespec time) { return (double)time.tv_sec + (double)time.tv_nsec / 1e9; }

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t blocked;
    sigfillset(&blocked);
    MUST(sigprocmask(SIG_SETMASK, &blocked, NULL));
    struct itimerspec before[SLOW], now;
    for (size_t i = 0; i < SLOW; i++) {
        int gap = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
        ids[i] = make(plans[i].clock, plans[i].notify, plans[i].signal, 700 + (int)i);
        MUST(syscall(SYS_timer_delete, gap));
        struct itimerspec timer = {.it_value = {plans[i].value, 0}, .it_interval = {plans[i].interval, plans[i].interval * 1000}};
        MUST(syscall(SYS_timer_settime, ids[i], 0, &timer, NULL));
    }
    /* One that has missed three expirations, has told so, and expires again in a thousand seconds. */
    int told = make(CLOCK_REALTIME, SIGEV_SIGNAL, 46, 901);
    struct itimerspec late = {.it_interval = {2000, 0}};
    clock_gettime(CLOCK_REALTIME, &late.it_value);
    late.it_value.tv_sec -= 7000;
    MUST(syscall(SYS_timer_settime, told, TIMER_ABSTIME, &late, NULL));
    sigset_t its;
    sigemptyset(&its);
    sigaddset(&its, 46);
    MUST(sigtimedwait(&its, NULL, &(struct timespec){1, 0}));
    if (syscall(SYS_timer_getoverrun, told) != 3)
        die("the timer has not missed three expirations");
    fast = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, 45, 900);
    struct itimerspec timer = {.it_value = {0, 1000000}, .it_interval = {0, 1000000}};
    MUST(syscall(SYS_timer_settime, fast, 0, &timer, NULL)); /* its signal is blocked: it overruns */
    char *list = contents("/proc/self/timers");
    for (size_t i = 0; i < SLOW; i++)
        syscall(SYS_timer_gettime, ids[i], &before[i]);
    double start = real_time();
    ready();
    while (running())
        ;
    double passed = real_time() - start, frozen = (double)lost / 1e9;
    char *list_now = contents("/proc/self/timers");
    verify_text(list_now, list, "/proc/self/timers");
    for (size_t i = 0; i < SLOW; i++) {
        if (syscall(SYS_timer_gettime, ids[i], &now)) {
            fail("timer %d: %s", ids[i], strerror(errno));
            continue;
        }
        EQUAL(now.it_interval.tv_sec, before[i].it_interval.tv_sec, "interval");
        EQUAL(now.it_interval.tv_nsec, before[i].it_interval.tv_nsec, "interval");
        double left = seconds(now.it_value), was = seconds(before[i].it_value);
        bool processor = plans[i].clock == CLOCK_PROCESS_CPUTIME_ID || plans[i].clock == CLOCK_THREAD_CPUTIME_ID;
        CHECK(left <= was + 0.1, "timer %zu has %f s left, had %f s", i, left, was);
        CHECK(left >= was - passed - 0.2, "timer %zu has %f s left, had %f s %f s ago", i, left, was, passed);
        if (!processor && was > 0)
            CHECK(left <= was - passed + frozen + 0.2, "timer %zu has %f s left, had %f s %f s ago", i, left, was, passed);
    }
    EQUAL(syscall(SYS_timer_getoverrun, told), 3, "expirations missed before the last signal");
    EXPECT(syscall(SYS_timer_gettime, told, &now));
    CHECK(now.it_value.tv_sec > 900 && now.it_value.tv_sec <= 1000, "the timer has %ld s left", now.it_value.tv_sec);
    /* The fast one has run all the time: one signal waits, the rest are overruns. */
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, 45);
    struct timespec none = {0, 0};
    siginfo_t info;
    passed = real_time() - start;
    EQUAL(sigtimedwait(&one, &info, &none), 45, "signal of the fast timer");
    EQUAL(info.si_code, SI_TIMER, "si_code");
    EQUAL(info.si_value.sival_int, 900, "value of the fast timer");
    long overruns = syscall(SYS_timer_getoverrun, fast);
    CHECK(overruns >= (long)((passed - frozen) * 1000 * 0.9) - 5 && overruns <= (long)(passed * 1000) + 200,
          "overruns: %ld in %f s (%f s frozen)", overruns, passed, frozen);
    struct timespec second = {1, 0};
    EQUAL(sigtimedwait(&one, &info, &second), 45, "next signal of the fast timer");
    /* Ids go on where they were: a new timer takes none that is there. */
    int next = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
    CHECK(next > fast, "a new timer has id %d, the last had %d", next, fast);
    return end();
}
