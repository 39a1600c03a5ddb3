/* workload: user_dispatch; kind: signal; user: any; refusal: allowed; about: system calls of a thread sent to a handler (syscall user dispatch) */
#include "workload.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

static volatile char selector;
static volatile sig_atomic_t caught;

static void on_call(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    selector = 0;
    caught = info->si_syscall;
}

static long plain(long number)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number) : "rcx", "r11", "memory");
    return result;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};
    MUST(sigaction(SIGSYS, &action, NULL));
    if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector))
        skip("syscall user dispatch: %s", strerror(errno));
    ready();
    while (running())
        ;
    selector = 1;
    plain(SYS_getppid);
    bool back = selector == 0;
    selector = 0;
    EQUAL(back, 1, "a call sent to the handler");
    EQUAL(caught, SYS_getppid, "number of the call");
    return end();
}
