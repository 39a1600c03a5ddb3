/* workload: affinity; kind: scheduling; user: any; refusal: allowed; about: processors that threads may run on */
#include "workload.h"

static atomic_int up, stop;
static cpu_set_t allowed;

static void *run(void *argument)
{
    cpu_set_t *own = argument;
    MUST(sched_setaffinity(0, sizeof *own, own));
    up++;
    while (!stop)
        sleep_seconds(0.001);
    same_processors("a thread", own);
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(sched_getaffinity(0, sizeof allowed, &allowed));
    if (CPU_COUNT(&allowed) < 2)
        skip("only one processor");
    static cpu_set_t sets[3];
    int first = -1, last = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed)) {
            first = first < 0 ? cpu : first;
            last = cpu;
        }
    CPU_SET(first, &sets[0]);
    CPU_SET(last, &sets[1]);
    sets[2] = allowed;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        threads[i] = thread(run, &sets[i]);
    while (up < 3)
        sched_yield();
    MUST(sched_setaffinity(0, sizeof sets[1], &sets[1]));
    ready();
    while (running())
        EQUAL(sched_getcpu(), last, "processor");
    same_processors("the first thread", &sets[1]);
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    return end();
}
