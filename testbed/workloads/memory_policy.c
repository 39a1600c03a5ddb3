/* workload: memory_policy; kind: memory; user: any; refusal: allowed; about: NUMA policy of the task and of areas */
#include "mappings.h"

#define MPOL_PREFERRED_ 1
#define MPOL_BIND_ 2
#define MPOL_INTERLEAVE_ 3

static void verify_policy(void *address, int mode, unsigned long nodes, const char *what)
{
    int now = -1;
    unsigned long now_nodes[16] = {0};
    if (syscall(SYS_get_mempolicy, &now, now_nodes, 1024UL, address, address ? 2UL : 0UL)) {
        fail("get_mempolicy: %s", strerror(errno));
        return;
    }
    CHECK(now == mode && now_nodes[0] == nodes, "%s: mode %d nodes %lx, was mode %d nodes %lx", what, now, now_nodes[0], mode, nodes);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    unsigned long node = 1;
    char *region = MUST(mmap(NULL, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (syscall(SYS_mbind, region, 4 * PAGE, MPOL_BIND_, &node, 64UL, 0))
        skip("mbind: %s", strerror(errno));
    MUST(syscall(SYS_mbind, region + 4 * PAGE, 4 * PAGE, MPOL_INTERLEAVE_, &node, 64UL, 0));
    MUST(syscall(SYS_set_mempolicy, MPOL_PREFERRED_, &node, 64UL));
    fill(region, 12 * PAGE, 1);
    ready();
    while (running())
        ;
    verify_policy(NULL, MPOL_PREFERRED_, node, "policy of the task");
    verify_policy(region, MPOL_BIND_, node, "policy of an area");
    verify_policy(region + 5 * PAGE, MPOL_INTERLEAVE_, node, "policy of the second area");
    verify_policy(region + 9 * PAGE, 0, 0, "policy of an area without its own");
    verify_fill(region, 12 * PAGE, 1, "memory");
    return end();
}
