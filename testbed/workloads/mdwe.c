/* workload: mdwe; kind: memory; user: any; refusal: allowed; about: memory that may be written may never be run (PR_SET_MDWE), also not after the move */
#include "workload.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *page = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0))
        skip("PR_SET_MDWE: %s", strerror(errno));
    ready();
    while (running())
        ;
    EQUAL(prctl(PR_GET_MDWE, 0, 0, 0, 0), PR_MDWE_REFUSE_EXEC_GAIN, "PR_GET_MDWE");
    EQUAL(mprotect(page, PAGE, PROT_READ | PROT_EXEC), -1, "making a page that was written to one that runs");
    EQUAL(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED, 1,
          "a page to be written and run");
    return end();
}
