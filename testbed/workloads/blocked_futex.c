/* workload: blocked_futex; kind: blocked; user: any; about: futex waits with and without time-out, absolute and relative, and condition variables */
#include "blocked.h"
#include <linux/futex.h>

static atomic_int words[5];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static bool signalled;

static long futex(atomic_int *word, int operation, int value, struct timespec *time, unsigned bits)
{
    return syscall(SYS_futex, word, operation, value, time, NULL, bits);
}
static long do_wait(void) { return futex(&words[0], FUTEX_WAIT_PRIVATE, 0, NULL, 0); }
static long do_wait_shared(void) { return futex(&words[1], FUTEX_WAIT, 0, NULL, 0); }
static long do_relative(void)
{
    struct timespec time = {2, 0};
    return futex(&words[2], FUTEX_WAIT_PRIVATE, 0, &time, 0);
}
static long do_absolute(clockid_t clock, int flag, atomic_int *word)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += 2;
    return futex(word, FUTEX_WAIT_BITSET_PRIVATE | flag, 0, &time, 7);
}
static long do_monotonic(void) { return do_absolute(CLOCK_MONOTONIC, 0, &words[3]); }
static long do_realtime(void) { return do_absolute(CLOCK_REALTIME, FUTEX_CLOCK_REALTIME, &words[4]); }
static long do_condition(void)
{
    pthread_mutex_lock(&lock);
    while (!signalled)
        pthread_cond_wait(&condition, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}
static long do_mutex(void)
{
    int error = pthread_mutex_lock(&held);
    pthread_mutex_unlock(&held);
    return error;
}

static void wake(void)
{
    EQUAL(futex(&words[0], FUTEX_WAKE_PRIVATE, 10, NULL, 0), 1, "threads woken");
    EQUAL(futex(&words[1], FUTEX_WAKE, 10, NULL, 0), 1, "threads woken");
    pthread_mutex_unlock(&held);
    pthread_mutex_lock(&lock);
    signalled = true;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&lock);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_mutex_lock(&held);
    struct blocked list[] = {
        {.name = "futex wait", .call = do_wait},
        {.name = "shared futex wait", .call = do_wait_shared},
        {.name = "futex wait, relative", .call = do_relative, .timeout = 2, .expected = -1, .expected_errno = ETIMEDOUT},
        {.name = "futex wait, monotonic", .call = do_monotonic, .timeout = 2, .expected = -1, .expected_errno = ETIMEDOUT},
        {.name = "futex wait, realtime", .call = do_realtime, .timeout = 2, .expected = -1, .expected_errno = ETIMEDOUT},
        {.name = "condition variable", .call = do_condition},
        {.name = "mutex", .call = do_mutex}};
    BLOCKED_ALL(list, wake);
    return end();
}
