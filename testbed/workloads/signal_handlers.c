/* workload: signal_handlers; kind: signal; user: any; about: dispositions of all signals, masks per thread, alternate stacks */
#include "workload.h"

/* The kernel's own form, so that flags and restorer are compared as they are. */
struct kernel_action {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
};

static struct kernel_action before[65];
static volatile sig_atomic_t seen_signal, seen_value, on_stack;
static volatile uint64_t seen_mask;
static char alternate[2][64 * KIB];
static atomic_int up, stop;

static uint64_t own_mask(void)
{
    uint64_t mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
    return mask;
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
    (void)context;
    seen_signal = signal;
    seen_value = info->si_code == SI_QUEUE ? info->si_value.sival_int : -1;
    seen_mask = own_mask();
    char here;
    on_stack = &here >= alternate[0] && &here < alternate[1];
}

static void simple(int signal) { seen_signal = signal; }

static struct kernel_action action_of(int signal)
{
    struct kernel_action action = {0};
    if (syscall(SYS_rt_sigaction, signal, NULL, &action, 8))
        fail("rt_sigaction %d: %s", signal, strerror(errno));
    return action;
}

static void *other(void *unused)
{
    (void)unused;
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGRTMIN + 9);
    sigaddset(&mask, SIGHUP);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    stack_t stack = {.ss_sp = alternate[1], .ss_size = sizeof alternate[1], .ss_flags = (int)0x80000000 /* AUTODISARM */};
    MUST(sigaltstack(&stack, NULL));
    uint64_t own = own_mask();
    up = 1;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(own_mask(), own, "mask of a thread");
    stack_t now;
    EXPECT(sigaltstack(NULL, &now));
    EQUAL(now.ss_sp, alternate[1], "alternate stack of a thread");
    EQUAL(now.ss_size, sizeof alternate[1], "size of a thread's alternate stack");
    EQUAL(now.ss_flags, (int)0x80000000, "flags of a thread's alternate stack");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t thread_id = thread(other, NULL);
    while (!up)
        sched_yield();
    int flags[] = {SA_SIGINFO, SA_SIGINFO | SA_ONSTACK, SA_SIGINFO | SA_RESTART, SA_SIGINFO | SA_NODEFER | SA_ONSTACK,
                   SA_SIGINFO | SA_RESETHAND};
    for (int signal = 1; signal <= 64; signal++) {
        if (signal == SIGKILL || signal == SIGSTOP || signal == SIGTERM || signal == 32 || signal == 33)
            continue;
        struct sigaction action = {.sa_flags = flags[signal % 5]};
        sigemptyset(&action.sa_mask);
        for (int k = 1; k <= 64; k++)
            if (mixed((uint64_t)signal * 100 + (uint64_t)k) % 4 == 0)
                sigaddset(&action.sa_mask, k);
        if (signal % 7 == 3) {
            action.sa_flags = 0;
            action.sa_handler = SIG_IGN;
        } else if (signal % 7 == 4) {
            action.sa_handler = SIG_DFL;
        } else if (action.sa_flags & SA_SIGINFO) {
            action.sa_sigaction = on_signal;
        } else {
            action.sa_handler = simple;
        }
        MUST(sigaction(signal, &action, NULL));
    }
    stack_t stack = {.ss_sp = alternate[0], .ss_size = sizeof alternate[0]};
    MUST(sigaltstack(&stack, NULL));
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGRTMIN + 20);
    MUST(sigprocmask(SIG_SETMASK, &mask, NULL));
    uint64_t own = own_mask();
    for (int signal = 1; signal <= 64; signal++)
        before[signal] = action_of(signal);
    ready();
    while (running())
        ;
    EQUAL(own_mask(), own, "mask of the first thread");
    for (int signal = 1; signal <= 64; signal++) {
        struct kernel_action now = action_of(signal), *old = &before[signal];
        CHECK(now.handler == old->handler && now.flags == old->flags && now.mask == old->mask && now.restorer == old->restorer,
              "signal %d: handler %p flags %lx mask %lx restorer %p, was %p %lx %lx %p", signal, now.handler, now.flags,
              now.mask, now.restorer, old->handler, old->flags, old->mask, old->restorer);
    }
    stack_t now;
    EXPECT(sigaltstack(NULL, &now));
    EQUAL(now.ss_sp, alternate[0], "alternate stack");
    EQUAL(now.ss_size, sizeof alternate[0], "size of the alternate stack");
    EQUAL(now.ss_flags, 0, "flags of the alternate stack");
    /* One with a handler on the alternate stack, delivered to this thread: 36 = 1 mod 5, 1 mod 7. */
    union sigval value = {.sival_int = 4242};
    pthread_sigqueue(pthread_self(), 36, value);
    EQUAL(seen_signal, 36, "signal handled");
    EQUAL(seen_value, 4242, "value of a signal");
    EQUAL(on_stack, 1, "handler on the alternate stack");
    EQUAL(seen_mask, own | (before[36].mask & ~(1UL << (SIGKILL - 1) | 1UL << (SIGSTOP - 1))) | 1UL << 35, "mask while handling");
    EQUAL(own_mask(), own, "mask after handling");
    stop = 1;
    pthread_join(thread_id, NULL);
    return end();
}
