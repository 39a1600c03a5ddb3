/* workload: mappings_10000; kind: memory; user: any; about: 10,000 areas */
#include "workload.h"

#define PAGES 10000

static int areas_in(unsigned long from, unsigned long to)
{
    int count = 0;
    char *text = contents("/proc/self/maps");
    for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        unsigned long start, stop;
        if (sscanf(line, "%lx-%lx", &start, &stop) == 2 && start >= from && stop <= to)
            count++;
    }
    free(text);
    return count;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *region = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    unsigned long from = (unsigned long)region, to = from + PAGES * PAGE;
    for (uint64_t i = 0; i < PAGES; i++) {
        if (i % 3)
            fill(region + i * PAGE, 64, i);
        if (i % 2)
            MUST(mprotect(region + i * PAGE, PAGE, PROT_READ));
    }
    int before = areas_in(from, to);
    EQUAL(before, PAGES, "areas");
    ready();
    while (running())
        ;
    EQUAL(areas_in(from, to), before, "areas");
    for (uint64_t i = 0; i < PAGES; i++) {
        if (i % 3)
            verify_fill(region + i * PAGE, 64, i, "an area");
        else
            verify_zero(region + i * PAGE, 64, "an untouched area");
        verify_zero(region + i * PAGE + 64, PAGE - 64, "the rest of an area");
    }
    return end();
}
