/* workload: process_settings; kind: task; user: any; about: prctl settings: huge pages off, machine-check policy, speculation, core dump filter, subreaper */
#include "workload.h"


int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    int machine_check = prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
    int fd = MUST(open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC));
    EQUAL(write(fd, "0x7f", 4), 4, "writing the core dump filter");
    close(fd);
    int speculation = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
    if (speculation > 0 && (speculation & PR_SPEC_PRCTL)) {
        MUST(prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0));
        speculation = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
    }
    char *filter = contents("/proc/self/coredump_filter");
    ready();
    while (running())
        ;
    EQUAL(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1, "huge pages off");
    if (machine_check == 0)
        EQUAL(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_EARLY, "machine-check policy");
    char *filter_now = contents("/proc/self/coredump_filter");
    verify_text(filter_now, filter, "core dump filter");
    EQUAL(prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0), speculation, "speculation control");
    int subreaper = 0;
    EXPECT(prctl(PR_GET_CHILD_SUBREAPER, &subreaper));
    EQUAL(subreaper, 1, "subreaper");
    return end();
}
