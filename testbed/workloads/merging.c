/* workload: merging; kind: memory; user: root; refusal: allowed; about: same-page merging of a whole process (PR_SET_MEMORY_MERGE) */
#include "workload.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
        skip("PR_SET_MEMORY_MERGE: %s", strerror(errno));
    char *region = MUST(mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < 64; i++)
        fill(region + (size_t)i * PAGE, PAGE, 1);
    ready();
    while (running())
        ;
    EQUAL(prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0), 1, "memory merging");
    for (int i = 0; i < 64; i++)
        verify_fill(region + (size_t)i * PAGE, PAGE, 1, "merged memory");
    return end();
}
