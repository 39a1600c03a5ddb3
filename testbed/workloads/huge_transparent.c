/* workload: huge_transparent; user: any; about: transparent huge pages: asked for, collapsed into without asking, and memory that must stay in small ones */
#include "mappings.h"

#define HUGE (2 * MIB)
#define SIZE (8 * MIB)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
static struct area_list areas[4];

static char *aligned(void)
{
    char *memory = MUST(mmap(NULL, SIZE + 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *start = (char *)(((uintptr_t)memory + HUGE - 1) & ~(HUGE - 1));
    /* Alone, so that no neighbour joins it. */
    if (start > memory)
        MUST(munmap(memory, (size_t)(start - memory)));
    MUST(munmap(start + SIZE, (size_t)(memory + 2 * HUGE - start)));
    return start;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    /* Asked for and full; asked for and sparse; never asked for, but collapsed; forbidden. */
    char *memory[4];
    for (int i = 0; i < 4; i++)
        memory[i] = aligned();
    MUST(madvise(memory[0], SIZE, MADV_HUGEPAGE));
    MUST(madvise(memory[3], SIZE, MADV_NOHUGEPAGE));
    for (int i = 0; i < 4; i++)
        if (i != 1)
            fill(memory[i], SIZE, (uint64_t)i);
        else
            for (size_t at = 0; at < SIZE; at += HUGE)
                fill(memory[1] + at + 5 * PAGE, PAGE, at);
    MUST(madvise(memory[1], SIZE, MADV_HUGEPAGE));
    madvise(memory[2], SIZE, MADV_COLLAPSE);
    long before[4];
    for (int i = 0; i < 4; i++) {
        before[i] = in_huge_pages(memory[i]);
        read_areas(&areas[i], (unsigned long)memory[i], (unsigned long)memory[i] + SIZE);
    }
    if (before[0] <= 0 && before[2] <= 0)
        skip("this host gives no huge pages");
    ready();
    while (running())
        ;
    for (int i = 0; i < 4; i++) {
        long now = in_huge_pages(memory[i]);
        if (i < 1 || i == 2)
            CHECK(now >= before[i], "area %d: %ld KiB in huge pages, were %ld", i, now, before[i]);
        if (i == 3)
            CHECK(now <= before[i], "area %d: %ld KiB in huge pages, were %ld", i, now, before[i]);
        verify_areas(&areas[i], (unsigned long)memory[i], (unsigned long)memory[i] + SIZE);
        if (i != 1)
            verify_fill(memory[i], SIZE, (uint64_t)i, "memory");
    }
    for (size_t at = 0; at < SIZE; at += HUGE)
        verify_fill(memory[1] + at + 5 * PAGE, PAGE, at, "a page of the sparse area");
    verify_zero(memory[1], 5 * PAGE, "the untouched part of the sparse area");
    fill(memory[1], SIZE, 9);
    verify_fill(memory[1], SIZE, 9, "the sparse area, full");
    return end();
}
