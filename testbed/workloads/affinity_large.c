/* workload: affinity_large; kind: scheduling; user: any; about: processors that threads may run on, of a process that receives 64 MiB itself */
#include "workload.h"

#define BYTES (64 * MIB)

static atomic_int stop;
static cpu_set_t allowed;

static void *run(void *argument)
{
    (void)argument;
    while (!stop)
        sleep_seconds(0.001);
    same_processors("a thread", &allowed);
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(sched_getaffinity(0, sizeof allowed, &allowed));
    if (CPU_COUNT(&allowed) < 2)
        skip("only one processor");
    uint64_t *memory = MUST(mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < BYTES / 8; i++)
        memory[i] = i + 1;
    pthread_t other = thread(run, NULL);
    ready();
    while (running())
        ;
    same_processors("the first thread", &allowed);
    size_t wrong = 0;
    for (size_t i = 0; i < BYTES / 8; i++)
        wrong += memory[i] != i + 1;
    EQUAL(wrong, 0, "words that differ");
    stop = 1;
    pthread_join(other, NULL);
    return end();
}
