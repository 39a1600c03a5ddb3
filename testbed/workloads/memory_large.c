/* workload: memory_large; kind: memory; user: any; about: 88 MiB of private memory: full, zero in places, in small pages for ever, and an area that changes all the time */
#include "mappings.h"

#define FULL (48 * MIB)
#define SMALL (16 * MIB)
#define CHANGING (24 * MIB)
#define ZERO_AT (8 * MIB + 3 * PAGE)
#define ZERO_SIZE (3 * MIB)
#define MIXED_AT (16 * MIB)
#define MIXED_SIZE (4 * MIB)
#define GONE_AT (24 * MIB + PAGE)
#define GONE_SIZE (5 * MIB)

static struct area_list areas;

static bool is_zero_page(size_t at)
{
    return (at >= ZERO_AT && at < ZERO_AT + ZERO_SIZE) ||
           (at >= MIXED_AT && at < MIXED_AT + MIXED_SIZE && at / PAGE % 5 == 2) ||
           (at >= GONE_AT && at < GONE_AT + GONE_SIZE);
}

static char *new_memory(size_t size)
{
    return MUST(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    /* Inaccessible memory between, so that each is an area of its own. */
    size_t size = FULL + SMALL + 3 * MIB;
    char *region = MUST(mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    char *full = region + MIB, *small = full + FULL + MIB;
    MUST(munmap(full, FULL));
    MUST(munmap(small, SMALL));
    MUST(mmap(full, FULL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    MUST(mmap(small, SMALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    MUST(madvise(small, SMALL, MADV_NOHUGEPAGE));
    for (size_t at = 0; at < FULL; at += PAGE)
        if (is_zero_page(at))
            memset(full + at, 0, PAGE);
        else
            fill(full + at, PAGE, at);
    MUST(madvise(full + GONE_AT, GONE_SIZE, MADV_DONTNEED));
    fill(small, SMALL, 2);
    unsigned long from = (unsigned long)region, to = from + size;
    read_areas(&areas, from, to);
    char *changing = new_memory(CHANGING);
    size_t length = CHANGING;
    uint64_t seed = 0;
    fill(changing, length / 2, seed);
    fill(changing + length / 2, length - length / 2, ~seed);
    ready();
    while (running()) { /* another place, another size, other contents, and for a while nothing at all in the second half */
        seed++;
        MUST(munmap(changing, length));
        length = CHANGING - seed % 7 * MIB;
        changing = new_memory(length);
        fill(changing, length / 2, seed);
        for (int pause = 0; pause < 20 && running(); pause++)
            usleep(1000);
        fill(changing + length / 2, length - length / 2, ~seed);
    }
    verify_areas(&areas, from, to);
    static unsigned char resident[GONE_SIZE / PAGE];
    EXPECT(mincore(full + GONE_AT, GONE_SIZE, resident));
    size_t present = 0;
    for (size_t i = 0; i < sizeof resident; i++)
        present += resident[i] & 1;
    EQUAL(present, 0, "pages present of memory that was given back");
    EQUAL(in_huge_pages(small), 0, "KiB of huge pages where none are wanted");
    for (size_t at = 0; at < FULL; at += PAGE)
        if (is_zero_page(at))
            verify_zero(full + at, PAGE, "zero");
        else
            verify_fill(full + at, PAGE, at, "full");
    verify_fill(small, SMALL, 2, "small");
    verify_fill(changing, length / 2, seed, "changing");
    verify_fill(changing + length / 2, length - length / 2, ~seed, "changing, second half");
    return end();
}
