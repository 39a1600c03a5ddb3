/* workload: heartbeat_memory; kind: process; user: any; about: the heartbeat's beats from two threads, one of which writes eight pages of its 32 MiB at every beat */
#define main main_of_processes
#include "heartbeat.c"
#undef main
#include <pthread.h>

/* Of one process alone, so that all of it may be owed. */
#define PAGES 8192

static char *memory;
static uint64_t written[PAGES];

static void *beat_only(void *unused)
{
    unsigned long number = 0;
    while (running()) {
        beat('b', &number);
    }
    return unused;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    beats = scratch("beats");
    close(MUST(open(beats, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)));
    memory = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE));
    for (size_t page = 0; page < PAGES; page++)
        fill(memory + page * PAGE, PAGE, written[page] = page);
    pthread_t other;
    EQUAL(pthread_create(&other, NULL, beat_only, NULL), 0, "pthread_create");
    unsigned long number = 0;
    ready();
    /* A quarter of it is written again and again, eight pages in a millisecond; the rest is quiet. */
    while (running()) {
        beat('a', &number);
        for (size_t page = number * 8; page < number * 8 + 8; page++)
            fill(memory + page % (PAGES / 4) * PAGE, PAGE, written[page % (PAGES / 4)] = number << 20);
    }
    for (size_t page = 0; page < PAGES; page++)
        verify_fill(memory + page * PAGE, PAGE, written[page], "memory");
    EQUAL(pthread_join(other, NULL), 0, "pthread_join");
    return end();
}
