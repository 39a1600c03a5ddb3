/* workload: cow_sharing; kind: memory; user: any; about: a parent and four children that share 16 MiB until they write: no more memory afterwards */
#include "workload.h"

#define SIZE (16 * MIB)
#define CHILDREN 4
static char *memory;
static atomic_int *up;

/* Proportional share of memory of a process in KiB: shared pages count in parts. */
static long share_of(pid_t pid)
{
    char *path = formatted("/proc/%d/smaps_rollup", pid), *text = field(path, "Pss:");
    long kib = atol(text);
    free(path), free(text);
    return kib;
}

static long total(const pid_t *pids)
{
    long sum = share_of(getpid());
    for (int i = 0; i < CHILDREN; i++)
        sum += share_of(pids[i]);
    return sum;
}

static void sharer(void *argument)
{
    uint64_t number = (uint64_t)argument;
    /* Each changes a part of its own. */
    fill(memory + number * 64 * PAGE, 32 * PAGE, 100 + number);
    (*up)++;
    while (running())
        ;
    for (uint64_t page = 0; page < SIZE / PAGE; page++) {
        bool mine = page / 64 == number && page % 64 < 32;
        if (!mine)
            verify_fill(memory + page * PAGE, PAGE, page, "a shared page in a child");
    }
    verify_fill(memory + number * 64 * PAGE, 32 * PAGE, 100 + number, "a child's own part");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    memory = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(madvise(memory, SIZE, MADV_NOHUGEPAGE));
    for (uint64_t page = 0; page < SIZE / PAGE; page++)
        fill(memory + page * PAGE, PAGE, page);
    pid_t pids[CHILDREN];
    for (uint64_t i = 0; i < CHILDREN; i++)
        pids[i] = child(sharer, (void *)(i + 1));
    while (*up < CHILDREN)
        sched_yield();
    sleep_seconds(0.01);
    long before = total(pids);
    CHECK(before < (long)(SIZE / KIB) + 12 * 1024, "nothing is shared: %ld KiB", before);
    ready();
    while (running())
        ;
    long now = total(pids);
    CHECK(now <= before + before / 10, "memory of all processes: %ld KiB, was %ld KiB", now, before);
    /* A write of the parent is the parent's alone. */
    fill(memory + 10 * PAGE, PAGE, 999);
    for (int i = 0; i < CHILDREN; i++)
        stop_and_collect(pids[i]);
    for (uint64_t page = 0; page < SIZE / PAGE; page++)
        verify_fill(memory + page * PAGE, PAGE, page == 10 ? 999 : page, "a page of the parent");
    return end();
}
