/* workload: scheduling; kind: scheduling; user: any; about: nice values and policies (normal, batch, idle, reset on fork) per thread */
#include "workload.h"

#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif

static const struct { int policy, nice; } plans[] = {
    {SCHED_OTHER, 0}, {SCHED_OTHER, 5}, {SCHED_BATCH, 7}, {SCHED_IDLE, 3}, {SCHED_BATCH | SCHED_RESET_ON_FORK, 19}};
static atomic_int up, stop;

static void *run(void *argument)
{
    int number = (int)(intptr_t)argument;
    struct sched_param none = {0};
    MUST(syscall(SYS_sched_setscheduler, gettid(), plans[number].policy, &none));
    MUST(setpriority(PRIO_PROCESS, (id_t)gettid(), plans[number].nice));
    up++;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(syscall(SYS_sched_getscheduler, gettid()), plans[number].policy, "policy");
    errno = 0;
    EQUAL(getpriority(PRIO_PROCESS, (id_t)gettid()), plans[number].nice, "nice");
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
