/* workload: scheduling_realtime; kind: scheduling; user: root; refusal: allowed; about: real-time policies and priorities, and a negative nice value */
#include "workload.h"

static const struct { int policy, priority; } plans[] = {{SCHED_FIFO, 7}, {SCHED_RR, 33}};
static atomic_int up, stop;

static void *run(void *argument)
{
    int number = (int)(intptr_t)argument;
    struct sched_param parameter = {.sched_priority = plans[number].priority};
    if (syscall(SYS_sched_setscheduler, gettid(), plans[number].policy, &parameter))
        skip("real-time policy: %s", strerror(errno));
    up++;
    while (!stop)
        sleep_seconds(0.002);
    EQUAL(syscall(SYS_sched_getscheduler, gettid()), plans[number].policy, "policy");
    EXPECT(syscall(SYS_sched_getparam, gettid(), &parameter));
    EQUAL(parameter.sched_priority, plans[number].priority, "priority");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t threads[COUNT(plans)];
    for (size_t i = 0; i < COUNT(plans); i++)
        threads[i] = thread(run, (void *)i);
    while (up < (int)COUNT(plans))
        sleep_seconds(0.001);
    if (setpriority(PRIO_PROCESS, 0, -5))
        skip("nice -5: %s", strerror(errno));
    ready();
    while (running())
        ;
    errno = 0;
    EQUAL(getpriority(PRIO_PROCESS, 0), -5, "nice");
    stop = 1;
    for (size_t i = 0; i < COUNT(plans); i++)
        pthread_join(threads[i], NULL);
    return end();
}
