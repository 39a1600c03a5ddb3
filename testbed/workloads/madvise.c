/* workload: madvise; kind: memory; user: any; about: advice that stays with an area, by its flags and by what it does */
#include "mappings.h"

static struct area_list areas;
static char *region;
#define SIZE (2 * MIB)

static void verify_fork(void *unused)
{
    (void)unused;
    unsigned char resident;
    EQUAL(mincore(region + 2 * SIZE, PAGE, &resident), -1, "MADV_DONTFORK area in a child");
    verify_zero(region + 3 * SIZE, PAGE, "MADV_WIPEONFORK area in a child");
    verify_fill(region + 1 * SIZE, SIZE, 1, "MADV_DONTDUMP area in a child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int advice[] = {MADV_NORMAL, MADV_DONTDUMP, MADV_DONTFORK, MADV_WIPEONFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
                    MADV_SEQUENTIAL, MADV_RANDOM, MADV_MERGEABLE};
    size_t count = COUNT(advice);
    region = MUST(mmap(NULL, (count + 1) * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    region = (char *)(((unsigned long)region + SIZE - 1) / SIZE * SIZE); /* aligned for huge pages */
    for (size_t i = 0; i < count; i++) {
        if (madvise(region + i * SIZE, SIZE, advice[i]) && advice[i] != MADV_MERGEABLE && advice[i] != MADV_HUGEPAGE)
            die("madvise %d: %s", advice[i], strerror(errno));
        fill(region + i * SIZE, SIZE, i);
    }
    MUST(mmap(region, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0));
    fill(region, PAGE, 50);
    unsigned long from = (unsigned long)region, to = from + count * SIZE;
    read_areas(&areas, from, to);
    ready();
    while (running())
        ;
    verify_areas(&areas, from, to);
    verify_fill(region, PAGE, 50, "area without reserve");
    for (size_t i = 1; i < count; i++)
        verify_fill(region + i * SIZE, SIZE, i, "an advised area");
    collect(child(verify_fork, NULL));
    return end();
}
