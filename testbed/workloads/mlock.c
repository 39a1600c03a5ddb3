/* workload: mlock; kind: memory; user: any; about: locked memory, at once and on fault */
#include "mappings.h"

static struct area_list areas;

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t size = 64 * PAGE;
    char *region = MUST(mmap(NULL, 4 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(region, size, 1);
    MUST(mlock(region, size));
    MUST(syscall(SYS_mlock2, region + 2 * size, size, 1 /* MLOCK_ONFAULT */));
    fill(region + 2 * size, PAGE, 2);
    unsigned long from = (unsigned long)region, to = from + 4 * size;
    read_areas(&areas, from, to);
    char *locked = field("/proc/self/status", "VmLck");
    ready();
    while (running())
        ;
    verify_areas(&areas, from, to);
    char *now = field("/proc/self/status", "VmLck");
    verify_text(now, locked, "locked memory");
    unsigned char resident[64];
    EXPECT(mincore(region, size, resident));
    for (int i = 0; i < 64; i++)
        CHECK(resident[i] & 1, "locked page %d is not in memory", i);
    EXPECT(mincore(region + 2 * size, size, resident));
    for (int i = 1; i < 64; i++)
        CHECK(!(resident[i] & 1), "page %d, locked on fault, is in memory already", i);
    verify_fill(region, size, 1, "locked memory");
    verify_fill(region + 2 * size, PAGE, 2, "memory locked on fault");
    return end();
}
