/* workload: itimers; kind: clock; user: any; about: interval timers of real, virtual and profiling time: fast ones that tick, in a child slow ones that wait */
#include "workload.h"

static atomic_int *up;
static volatile sig_atomic_t ticks[3];
static const int signals[] = {SIGALRM, SIGVTALRM, SIGPROF};

static void on_tick(int signal)
{
    for (int i = 0; i < 3; i++)
        if (signals[i] == signal)
            ticks[i]++;
}

static double seconds(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec / 1e6; }

static void slow(void *unused)
{
    (void)unused;
    struct itimerval before[3], now;
    for (int i = 0; i < 3; i++) {
        struct itimerval timer = {.it_value = {1000 + i, 500000}, .it_interval = {77 + i, 123000 + i * 1000}};
        MUST(setitimer(i, &timer, NULL));
    }
    for (int i = 0; i < 3; i++)
        getitimer(i, &before[i]);
    double start = real_time();
    (*up)++;
    while (running())
        ;
    double passed = real_time() - start;
    for (int i = 0; i < 3; i++) {
        EXPECT(getitimer(i, &now));
        double left = seconds(now.it_value), was = seconds(before[i].it_value);
        /* A tick of the clock for each time that it was set anew. */
        CHECK(left <= was + 0.1, "timer %d has %f s left, had %f s", i, left, was);
        CHECK(left >= was - passed - 0.2, "timer %d has %f s left, had %f s %f s ago", i, left, was, passed);
        if (i == 0)
            CHECK(left <= was - passed + (double)lost / 1e9 + 0.2, "the real timer has %f s left, had %f s %f s ago", left, was, passed);
        EQUAL(now.it_interval.tv_sec, before[i].it_interval.tv_sec, "interval");
        EQUAL(now.it_interval.tv_usec, before[i].it_interval.tv_usec, "interval");
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(slow, NULL);
    while (*up < 1)
        sched_yield();
    struct itimerval timer = {.it_value = {0, 10000}, .it_interval = {0, 20000}};
    for (int i = 0; i < 3; i++) {
        struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
        MUST(sigaction(signals[i], &action, NULL));
        MUST(setitimer(i, &timer, NULL));
    }
    ready();
    uint64_t sum = 0;
    while (running())
        for (uint64_t i = 0; i < 100000; i++) /* processor time has to pass */
            sum = mixed(sum);
    int before[3] = {ticks[0], ticks[1], ticks[2]};
    for (double start = real_time(); real_time() < start + 5;) {
        for (uint64_t i = 0; i < 100000; i++)
            sum = mixed(sum);
        if (ticks[0] >= before[0] + 3 && ticks[1] >= before[1] + 3 && ticks[2] >= before[2] + 3)
            break;
    }
    for (int i = 0; i < 3; i++) {
        struct itimerval now;
        CHECK(ticks[i] >= before[i] + 3, "interval timer %d does not tick any more", i);
        EXPECT(getitimer(i, &now));
        EQUAL(now.it_interval.tv_sec, 0, "interval");
        CHECK(labs(now.it_interval.tv_usec - 20000) <= 4000, "interval: %ld us, was 20000", now.it_interval.tv_usec);
        memset(&now, 0, sizeof now);
        setitimer(i, &now, NULL);
    }
    stop_and_collect(pid);
    return end() + (sum == 1);
}
