/* Threads that wait in a system call while the program is moved. Nothing of the freeze may show: no EINTR, no early or
 * late return; time that the program was frozen may but need not count. */
#ifndef BLOCKED_H
#define BLOCKED_H
#include "workload.h"

/* How far from its time-out a call may return, on a busy machine; a call that starts over with its whole time is further. */
#define TOLERANCE 0.35

struct blocked {
    const char *name;
    long (*call)(void);    /* returns what the system call returned; errno as it left it */
    double timeout;        /* seconds after which the call returns by itself; 0: only when woken */
    long expected;         /* what it returns */
    int expected_errno;    /* with -1 */
    pthread_t thread;
    atomic_int id;
    atomic_int rounds;
};
static atomic_bool blocked_stop;

static void *blocked_run(void *argument)
{
    struct blocked *blocked = argument;
    blocked->id = gettid();
    do {
        double start = real_time();
        long long lost_before = lost;
        errno = 0;
        long result = blocked->call();
        int error = errno;
        double passed = real_time() - start;
        CHECK(result == blocked->expected && (result != -1 || error == blocked->expected_errno),
              "%s returned %ld (%s), not %ld (%s)", blocked->name, result, strerror(error), blocked->expected,
              strerror(blocked->expected_errno));
        if (blocked->timeout > 0) {
            /* The main loop notices a freeze up to some milliseconds after this thread. */
            sleep_seconds(0.05);
            double frozen = (double)(lost - lost_before) / 1e9;
            CHECK(passed >= blocked->timeout - 0.003, "%s returned after %f s, not %f s", blocked->name, passed, blocked->timeout);
            CHECK(passed <= blocked->timeout + frozen + TOLERANCE, "%s returned after %f s, not %f s; %f s were lost",
                  blocked->name, passed, blocked->timeout, frozen);
        }
        blocked->rounds++;
    } while (blocked->timeout > 0 && !blocked_stop);
    return NULL;
}

/* Starts a thread for each call, waits for SIGTERM, wakes those without a time-out, waits for all. */
static void blocked_all(struct blocked *list, size_t count, void (*wake)(void))
{
    for (size_t i = 0; i < count; i++) {
        list[i].thread = thread(blocked_run, &list[i]);
        while (!list[i].id)
            sched_yield();
        await_sleep(list[i].id);
    }
    ready();
    while (running())
        ;
    for (size_t i = 0; i < count; i++)
        if (list[i].timeout == 0)
            EQUAL(list[i].rounds, 0, list[i].name);
    blocked_stop = true;
    if (wake)
        wake();
    for (size_t i = 0; i < count; i++) {
        struct timespec deadline;
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += 10;
        if (pthread_timedjoin_np(list[i].thread, NULL, &deadline))
            fail("%s does not return", list[i].name);
    }
}
#define BLOCKED_ALL(list, wake) blocked_all(list, COUNT(list), wake)
#endif
