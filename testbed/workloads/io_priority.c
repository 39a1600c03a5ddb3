/* workload: io_priority; kind: scheduling; user: any; refusal: allowed; about: I/O class and priority per thread */
#include "workload.h"

#define PRIORITY(class, data) ((class) << 13 | (data))
static atomic_int up, stop;

static long own(void) { return syscall(SYS_ioprio_get, 1, gettid()); }

static void *run(void *argument)
{
    MUST(syscall(SYS_ioprio_set, 1, gettid(), argument));
    up++;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(own(), (intptr_t)argument, "I/O priority of a thread");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t threads[2] = {thread(run, (void *)PRIORITY(2, 6)), thread(run, (void *)PRIORITY(3, 0))};
    while (up < 2)
        sched_yield();
    MUST(syscall(SYS_ioprio_set, 1, 0, PRIORITY(2, 1)));
    ready();
    while (running())
        ;
    EQUAL(own(), PRIORITY(2, 1), "I/O priority");
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return end();
}
