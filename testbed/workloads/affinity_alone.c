/* workload: affinity_alone; kind: scheduling; user: any; about: processors that the only thread may run on, which is built on its builder's */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    MUST(sched_getaffinity(0, sizeof allowed, &allowed));
    if (CPU_COUNT(&allowed) < 2)
        skip("only one processor");
    ready();
    while (running())
        same_processors("the only thread", &allowed);
    same_processors("the only thread", &allowed);
    return end();
}
