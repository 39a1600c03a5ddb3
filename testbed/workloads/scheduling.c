/* workload: scheduling; kind: scheduling; user: any; about: nice values, policies (normal, batch, idle, reset on fork) and lengths of turns per thread */
#include "workload.h"

#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif

/* turn: how long it wants to have a processor at once, ns; 0: it does not say. */
static const struct { int policy, nice; uint64_t turn; } plans[] = {
    {SCHED_OTHER, 0, 0}, {SCHED_OTHER, 5, 0}, {SCHED_OTHER, 0, 700000}, {SCHED_BATCH, 7, 0}, {SCHED_BATCH, 4, 5000000},
    {SCHED_IDLE, 3, 0}, {SCHED_IDLE, 3, 9000000}, {SCHED_BATCH | SCHED_RESET_ON_FORK, 19, 0}};
static atomic_int up, stop;

/* sched_setattr(2), SCHED_ATTR_SIZE_VER0 */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static uint64_t turn(void)
{
    struct attributes now = {0};
    MUST(syscall(SYS_sched_getattr, 0, &now, sizeof now, 0));
    return now.runtime;
}

static void *run(void *argument)
{
    int number = (int)(intptr_t)argument;
    struct sched_param none = {0};
    struct attributes wanted = {.size = sizeof wanted, .policy = SCHED_OTHER, .runtime = plans[number].turn};
    if (plans[number].turn)
        MUST(syscall(SYS_sched_setattr, 0, &wanted, 0));
    MUST(syscall(SYS_sched_setscheduler, gettid(), plans[number].policy, &none));
    MUST(setpriority(PRIO_PROCESS, (id_t)gettid(), plans[number].nice));
    /* Before Linux 6.12 it is zero, whatever was asked for. */
    uint64_t own = turn();
    up++;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(syscall(SYS_sched_getscheduler, gettid()), plans[number].policy, "policy");
    errno = 0;
    EQUAL(getpriority(PRIO_PROCESS, (id_t)gettid()), plans[number].nice, "nice");
    EQUAL(turn(), own, "length of its turns");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t threads[COUNT(plans)];
    for (size_t i = 0; i < COUNT(plans); i++)
        threads[i] = thread(run, (void *)i);
    while (up < (int)COUNT(plans))
        sched_yield();
    MUST(setpriority(PRIO_PROCESS, 0, 2));
    ready();
    while (running())
        ;
    EQUAL(getpriority(PRIO_PROCESS, 0), 2, "nice of the first thread");
    EQUAL(sched_getscheduler(0), SCHED_OTHER, "policy of the first thread");
    stop = 1;
    for (size_t i = 0; i < COUNT(plans); i++)
        pthread_join(threads[i], NULL);
    return end();
}
