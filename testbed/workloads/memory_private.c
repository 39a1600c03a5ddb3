/* workload: memory_private; kind: memory; user: any; about: 4 MiB of private anonymous memory with holes, guards and untouched pages */
#include "mappings.h"

static struct area_list areas;

int main(int argc, char **argv)
{
    begin(argc, argv);
    /* A region of its own: pattern, hole, inaccessible with contents, untouched, sparse, read-only. */
    size_t size = 16 * MIB;
    char *region = MUST(mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    unsigned long from = (unsigned long)region, to = from + size;
    char *full = region;
    MUST(mprotect(full, 4 * MIB, PROT_READ | PROT_WRITE));
    fill(full, 4 * MIB, 1);
    MUST(munmap(region + 4 * MIB, 1 * MIB));
    char *hidden = region + 5 * MIB;
    MUST(mprotect(hidden, MIB, PROT_READ | PROT_WRITE));
    fill(hidden, MIB, 2);
    MUST(mprotect(hidden, MIB, PROT_NONE));
    char *untouched = region + 6 * MIB;
    MUST(mprotect(untouched, 4 * MIB, PROT_READ | PROT_WRITE));
    char *sparse = region + 10 * MIB;
    MUST(mprotect(sparse, 4 * MIB, PROT_READ | PROT_WRITE));
    for (size_t page = 0; page < 4 * MIB / PAGE; page += 7)
        fill(sparse + page * PAGE, PAGE, 1000 + page);
    for (size_t page = 3; page < 4 * MIB / PAGE; page += 7)
        (void)*(volatile char *)(sparse + page * PAGE); /* the zero page */
    char *fixed = region + 14 * MIB;
    MUST(mprotect(fixed, MIB, PROT_READ | PROT_WRITE));
    fill(fixed, MIB, 3);
    MUST(mprotect(fixed, MIB, PROT_READ));
    read_areas(&areas, from, to);
    uint64_t round = 0;
    ready();
    while (running()) { /* rewrites one page after the other and puts it back */
        char *page = full + (round++ % (4 * MIB / PAGE)) * PAGE;
        for (size_t i = 0; i < PAGE; i++)
            page[i] = (char)~page[i];
        for (size_t i = 0; i < PAGE; i++)
            page[i] = (char)~page[i];
    }
    verify_areas(&areas, from, to);
    unsigned char resident[4 * MIB / PAGE];
    EXPECT(mincore(untouched, 4 * MIB, resident));
    size_t present = 0;
    for (size_t i = 0; i < sizeof resident; i++)
        present += resident[i] & 1;
    EQUAL(present, 0, "pages present of untouched memory");
    verify_fill(full, 4 * MIB, 1, "full");
    EXPECT(mprotect(hidden, MIB, PROT_READ));
    verify_fill(hidden, MIB, 2, "inaccessible");
    verify_zero(untouched, 4 * MIB, "untouched");
    for (size_t page = 0; page < 4 * MIB / PAGE; page++) {
        if (page % 7 == 0)
            verify_fill(sparse + page * PAGE, PAGE, 1000 + page, "sparse");
        else
            verify_zero(sparse + page * PAGE, PAGE, "sparse");
    }
    verify_fill(fixed, MIB, 3, "read-only");
    return end();
}
