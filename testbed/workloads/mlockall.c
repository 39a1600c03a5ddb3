/* workload: mlockall; kind: memory; user: root; about: all memory locked, present and future */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *early = MUST(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(early, 16 * PAGE, 1);
    MUST(mlockall(MCL_CURRENT | MCL_FUTURE));
    char *locked = field("/proc/self/status", "VmLck");
    ready();
    while (running())
        ;
    char *now = field("/proc/self/status", "VmLck");
    verify_text(now, locked, "locked memory");
    char *late = EXPECT(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    unsigned char resident[16];
    EXPECT(mincore(late, 16 * PAGE, resident));
    for (int i = 0; i < 16; i++)
        CHECK(resident[i] & 1, "page %d of memory mapped later is not in memory", i);
    verify_fill(early, 16 * PAGE, 1, "locked memory");
    return end();
}
