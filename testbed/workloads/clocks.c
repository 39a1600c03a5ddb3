/* workload: clocks; kind: clock; user: any; about: clocks of the vDSO and of the kernel: never backwards, and the same in both */
#include "workload.h"

/* Not the processor time of a process or thread: no system call can set it, so nothing can bring it along. */
static const clockid_t clocks[] = {CLOCK_MONOTONIC,     CLOCK_BOOTTIME,         CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE,
                                   CLOCK_REALTIME,      CLOCK_REALTIME_COARSE,  CLOCK_TAI};
static const char *names[] = {"MONOTONIC", "BOOTTIME",        "MONOTONIC_RAW", "MONOTONIC_COARSE",
                              "REALTIME",  "REALTIME_COARSE", "TAI"};
static atomic_bool stop;

static int64_t nanoseconds(clockid_t clock, bool by_kernel)
{
    struct timespec now = {0, 0};
    long result = by_kernel ? syscall(SYS_clock_gettime, clock, &now) : clock_gettime(clock, &now);
    if (result)
        fail("clock_gettime: %s", strerror(errno));
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void *watch(void *unused)
{
    (void)unused;
    int64_t last[COUNT(clocks)] = {0};
    while (!stop && failures < 5) {
        for (size_t i = 0; i < COUNT(clocks); i++) {
            for (int way = 0; way < 2; way++) {
                int64_t now = nanoseconds(clocks[i], way);
                CHECK(now >= last[i], "CLOCK_%s went back by %lld ns", names[i], (long long)(last[i] - now));
                last[i] = now;
            }
        }
        struct timespec pause = {0, 200000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        threads[i] = thread(watch, NULL);
    double real = seconds_of(CLOCK_REALTIME), monotonic = seconds_of(CLOCK_MONOTONIC);
    double boot = seconds_of(CLOCK_BOOTTIME), difference = boot - monotonic;
    struct timespec resolution;
    ready();
    while (running()) {
        struct timeval day;
        gettimeofday(&day, NULL);
        double by_day = (double)day.tv_sec + (double)day.tv_usec / 1e6, by_clock = seconds_of(CLOCK_REALTIME);
        CHECK(by_clock - by_day > -0.001, "gettimeofday is ahead of CLOCK_REALTIME by %f s", by_day - by_clock);
        CHECK(labs(time(NULL) - (long)by_clock) <= 1, "time() is %ld s off", time(NULL) - (long)by_clock);
    }
    double real_passed = seconds_of(CLOCK_REALTIME) - real, passed = seconds_of(CLOCK_MONOTONIC) - monotonic;
    CHECK(passed <= real_passed + 0.05, "CLOCK_MONOTONIC jumped ahead: %f s passed, %f s in fact", passed, real_passed);
    CHECK(passed >= real_passed - (double)lost / 1e9 - 0.05, "CLOCK_MONOTONIC: %f s passed, %f s in fact, %f s frozen",
          passed, real_passed, (double)lost / 1e9);
    double now = seconds_of(CLOCK_BOOTTIME) - seconds_of(CLOCK_MONOTONIC);
    CHECK(now > difference - 0.01 && now < difference + (double)lost / 1e9 + 0.05, /* a gap below 0.02 s is not counted as lost */
          "CLOCK_BOOTTIME is %f s ahead of CLOCK_MONOTONIC, was %f", now, difference);
    EXPECT(clock_getres(CLOCK_MONOTONIC, &resolution));
    EQUAL(resolution.tv_nsec, 1, "resolution");
    unsigned int cpu, node;
    EXPECT(getcpu(&cpu, &node));
    for (size_t i = 0; i < COUNT(clocks); i++) {
        int64_t by_kernel = nanoseconds(clocks[i], true), by_vdso = nanoseconds(clocks[i], false);
        int64_t again = nanoseconds(clocks[i], true);
        CHECK(by_kernel <= by_vdso && by_vdso <= again, "CLOCK_%s of the vDSO is not that of the kernel", names[i]);
    }
    stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return end();
}
