/* workload: clocks_absolute; kind: clock; user: any; about: waits for points on CLOCK_MONOTONIC and CLOCK_BOOTTIME: sleeps, futexes, semaphores, conditions */
#include "blocked.h"
#include <linux/futex.h>
#include <semaphore.h>

static atomic_int word;
static sem_t semaphore;

static struct timespec in_two_seconds(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += 2;
    return time;
}

/* The point has been reached, on the clock that was waited for, and not much later than the program can have been frozen. */
static long reached(struct timespec point, clockid_t clock, long result)
{
    struct timespec now;
    clock_gettime(clock, &now);
    double late = (double)(now.tv_sec - point.tv_sec) + (double)(now.tv_nsec - point.tv_nsec) / 1e9;
    CHECK(late >= 0, "clock %d stood %f s before the point that was waited for", clock, -late);
    CHECK(late < TOLERANCE + (double)lost / 1e9, "clock %d stood %f s behind the point that was waited for", clock, late);
    return result;
}

static long sleep_until(clockid_t clock)
{
    struct timespec point = in_two_seconds(clock);
    return reached(point, clock, -syscall(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &point, NULL));
}
static long do_monotonic(void) { return sleep_until(CLOCK_MONOTONIC); }
static long do_boottime(void) { return sleep_until(CLOCK_BOOTTIME); }
static long do_futex(void)
{
    struct timespec point = in_two_seconds(CLOCK_MONOTONIC);
    long result = syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &point, NULL, 7);
    int error = errno;
    reached(point, CLOCK_MONOTONIC, 0);
    errno = error;
    return result;
}
static long do_semaphore(void)
{
    struct timespec point = in_two_seconds(CLOCK_MONOTONIC);
    long result = sem_clockwait(&semaphore, CLOCK_MONOTONIC, &point);
    int error = errno;
    reached(point, CLOCK_MONOTONIC, 0);
    errno = error;
    return result;
}
static long do_condition(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    struct timespec point = in_two_seconds(CLOCK_MONOTONIC);
    pthread_mutex_lock(&lock);
    long result = pthread_cond_clockwait(&condition, &lock, CLOCK_MONOTONIC, &point);
    pthread_mutex_unlock(&lock);
    return reached(point, CLOCK_MONOTONIC, result);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    EXPECT(sem_init(&semaphore, 0, 0));
    struct blocked list[] = {
        {.name = "sleep until a monotonic time", .call = do_monotonic, .timeout = 2},
        {.name = "sleep until a boot time", .call = do_boottime, .timeout = 2},
        {.name = "futex", .call = do_futex, .timeout = 2, .expected = -1, .expected_errno = ETIMEDOUT},
        {.name = "semaphore", .call = do_semaphore, .timeout = 2, .expected = -1, .expected_errno = ETIMEDOUT},
        {.name = "condition", .call = do_condition, .timeout = 2, .expected = ETIMEDOUT}};
    BLOCKED_ALL(list, NULL);
    return end();
}
