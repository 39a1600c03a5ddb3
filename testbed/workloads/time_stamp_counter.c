/* workload: time_stamp_counter; kind: processor; user: any; refusal: allowed; about: a thread that may not read the time stamp counter, and one that may */
#include "workload.h"
#include <setjmp.h>

static sigjmp_buf back;
static atomic_int up, stop;

static void on_fault(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static void *forbidden(void *unused)
{
    (void)unused;
    MUST(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
    up = 1;
    while (!stop) {
        struct timespec time = {0, 1000000}; /* the vDSO would read the counter */
        syscall(SYS_nanosleep, &time, NULL);
    }
    int now = 0;
    EXPECT(prctl(PR_GET_TSC, &now));
    EQUAL(now, PR_TSC_SIGSEGV, "PR_GET_TSC of a thread");
    volatile bool faulted = true;
    if (!sigsetjmp(back, 1)) {
        __builtin_ia32_rdtsc();
        faulted = false;
    }
    EXPECT(prctl(PR_SET_TSC, PR_TSC_ENABLE));
    EQUAL(faulted, 1, "reading the counter faults");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    signal(SIGSEGV, on_fault);
    pthread_t other = thread(forbidden, NULL);
    while (!up)
        sched_yield();
    ready();
    while (running())
        ;
    int now = 0;
    EXPECT(prctl(PR_GET_TSC, &now));
    EQUAL(now, PR_TSC_ENABLE, "PR_GET_TSC");
    CHECK(__builtin_ia32_rdtsc() != 0, "the counter stands still");
    stop = 1;
    pthread_join(other, NULL);
    return end();
}
