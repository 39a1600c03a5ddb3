/* workload: blocked_sleep; kind: blocked; user: any; about: nanosleep, clock_nanosleep relative and absolute */
#include "blocked.h"

static long do_nanosleep(void)
{
    struct timespec time = {2, 0};
    return syscall(SYS_nanosleep, &time, &time);
}
static long relative(clockid_t clock)
{
    struct timespec time = {2, 0};
    return -syscall(SYS_clock_nanosleep, clock, 0, &time, &time);
}
static long absolute(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += 2;
    return -syscall(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &time, NULL);
}
static long do_monotonic(void) { return relative(CLOCK_MONOTONIC); }
static long do_realtime(void) { return relative(CLOCK_REALTIME); }
static long do_boottime(void) { return relative(CLOCK_BOOTTIME); }
static long do_absolute_monotonic(void) { return absolute(CLOCK_MONOTONIC); }
static long do_absolute_realtime(void) { return absolute(CLOCK_REALTIME); }
static long do_long(void) /* woken only by the end of the process: must not return before */
{
    struct timespec time = {1000000, 0};
    nanosleep(&time, NULL);
    fail("a sleep of 1000000 s returned");
    return 0;
}

static void *long_sleeper(void *unused)
{
    (void)unused;
    do_long();
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    thread(long_sleeper, NULL);
    struct blocked list[] = {{.name = "nanosleep", .call = do_nanosleep, .timeout = 2},
                             {.name = "clock_nanosleep, monotonic", .call = do_monotonic, .timeout = 2},
                             {.name = "clock_nanosleep, realtime", .call = do_realtime, .timeout = 2},
                             {.name = "clock_nanosleep, boottime", .call = do_boottime, .timeout = 2},
                             {.name = "clock_nanosleep, monotonic, absolute", .call = do_absolute_monotonic, .timeout = 2},
                             {.name = "clock_nanosleep, realtime, absolute", .call = do_absolute_realtime, .timeout = 2}};
    BLOCKED_ALL(list, NULL);
    return end();
}
