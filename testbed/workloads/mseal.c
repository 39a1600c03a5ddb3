/* workload: mseal; kind: memory; user: any; refusal: allowed; about: sealed memory: contents, and that it cannot be changed */
#include "mappings.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
static struct area_list areas;

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t size = 16 * PAGE;
    char *region = MUST(mmap(NULL, 3 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(region, 3 * size, 1);
    MUST(mprotect(region, size, PROT_READ));
    if (syscall(SYS_mseal, region, 2 * size, 0))
        skip("mseal: %s", strerror(errno));
    unsigned long from = (unsigned long)region, to = from + 3 * size;
    read_areas(&areas, from, to);
    ready();
    while (running())
        ;
    verify_areas(&areas, from, to);
    verify_fill(region, 3 * size, 1, "sealed memory");
    EQUAL(mprotect(region, size, PROT_READ | PROT_WRITE), -1, "mprotect of sealed memory");
    EQUAL(munmap(region + size, PAGE), -1, "munmap of sealed memory");
    EQUAL(mremap(region + size, size, 2 * size, MREMAP_MAYMOVE) == MAP_FAILED, 1, "mremap of sealed memory");
    EQUAL(mprotect(region + 2 * size, size, PROT_READ), 0, "mprotect of memory that is not sealed");
    region[size] ^= 1; /* writing is allowed */
    region[size] ^= 1;
    return end();
}
