/* workload: timerfd; kind: clock; user: any; about: timerfds: periodic with unread ticks, absolute, far away, expired, disarmed, several clocks */
#include "workload.h"
#include <sys/timerfd.h>

static double seconds(struct timespec time) { return (double)time.tv_sec + (double)time.tv_nsec / 1e9; }

int main(int argc, char **argv)
{
    begin(argc, argv);
    clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_MONOTONIC};
    int fds[COUNT(clocks)];
    for (size_t i = 0; i < COUNT(clocks); i++)
        fds[i] = MUST(timerfd_create(clocks[i], (i % 2 ? TFD_NONBLOCK : TFD_CLOEXEC)));
    struct itimerspec periodic = {{0, 10000000}, {0, 10000000}}, far = {{500, 123}, {5000, 0}}, soon = {{0, 0}, {0, 1000000}};
    struct itimerspec absolute = {{0, 0}, {0, 0}}, now;
    clock_gettime(CLOCK_REALTIME, &absolute.it_value);
    absolute.it_value.tv_sec += 10000;
    MUST(timerfd_settime(fds[0], 0, &periodic, NULL));
    MUST(timerfd_settime(fds[1], TFD_TIMER_ABSTIME, &absolute, NULL));
    MUST(timerfd_settime(fds[2], 0, &far, NULL));
    MUST(timerfd_settime(fds[3], 0, &soon, NULL)); /* expires once, unread */
    MUST(timerfd_settime(fds[4], TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &absolute, NULL));
    /* the last is never armed */
    double start = real_time();
    char *list = descriptor_list();
    sleep_seconds(0.02);
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    double passed = real_time() - start, frozen = (double)lost / 1e9;
    uint64_t ticks = 0;
    EXPECT(fcntl(fds[0], F_SETFL, O_NONBLOCK));
    EQUAL(read(fds[0], &ticks, 8), 8, "read of a periodic timer");
    CHECK(ticks >= (uint64_t)((passed - frozen) * 100 * 0.9) - 2 && ticks <= (uint64_t)(passed * 100) + 20,
          "%llu ticks in %f s, %f s frozen", (unsigned long long)ticks, passed, frozen);
    sleep_seconds(0.1);
    EQUAL(read(fds[0], &ticks, 8), 8, "read of a periodic timer after 0.1 s");
    CHECK(ticks >= 3 && ticks <= 50, "%llu ticks in 0.1 s", (unsigned long long)ticks);
    EXPECT(timerfd_gettime(fds[0], &now));
    EQUAL(now.it_interval.tv_nsec, 10000000, "interval");
    EXPECT(timerfd_gettime(fds[1], &now));
    double expected = seconds(absolute.it_value) - real_time();
    CHECK(seconds(now.it_value) > expected - 0.1 && seconds(now.it_value) < expected + 0.1, "absolute timer: %f s left, not %f",
          seconds(now.it_value), expected);
    EXPECT(timerfd_gettime(fds[2], &now));
    EQUAL(now.it_interval.tv_sec, 500, "interval");
    EQUAL(now.it_interval.tv_nsec, 123, "interval");
    double left = seconds(now.it_value);
    CHECK(left <= 5000 - passed + frozen + 0.2 && left >= 5000 - passed - 0.2, "%f s left of 5000 after %f s", left, passed);
    EQUAL(read(fds[3], &ticks, 8), 8, "read of an expired timer");
    EQUAL(ticks, 1, "ticks of an expired timer");
    EQUAL(read(fds[3], &ticks, 8), -1, "second read of an expired timer");
    EXPECT(timerfd_gettime(fds[4], &now));
    CHECK(seconds(now.it_value) > expected - 0.1 && seconds(now.it_value) < expected + 0.1, "timer cancelled on set: %f s left", seconds(now.it_value));
    EXPECT(timerfd_gettime(fds[5], &now));
    EQUAL(now.it_value.tv_sec + now.it_value.tv_nsec, 0, "a timer that was never armed");
    for (size_t i = 0; i < COUNT(clocks); i++) {
        char *path = formatted("/proc/self/fdinfo/%d", fds[i]), *clock = field(path, "clockid");
        EQUAL(atoi(clock), clocks[i], "clock");
        char *flags = field(path, "settime flags");
        int expected_flags[] = {0, 1, 0, 0, 3, 0};
        EQUAL(strtol(flags, NULL, 8), expected_flags[i], "settime flags");
        free(path), free(clock), free(flags);
    }
    return end();
}
