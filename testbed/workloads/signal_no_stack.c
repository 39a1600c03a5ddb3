/* workload: signal_no_stack; kind: signal; user: any; about: a handler that asks for an alternate stack where there is none */
#include "workload.h"

static volatile sig_atomic_t seen[2];

static void on_signal(int signal) { seen[signal == SIGUSR2] = 1; }

static void *other(void *unused)
{
    (void)unused;
    while (!seen[1])
        sleep_seconds(0.001);
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    MUST(sigaction(SIGUSR1, &action, NULL));
    MUST(sigaction(SIGUSR2, &action, NULL));
    pthread_t other_thread = thread(other, NULL);
    ready();
    while (running())
        ;
    stack_t now;
    EXPECT(sigaltstack(NULL, &now));
    EQUAL(now.ss_flags, SS_DISABLE, "flags of an alternate stack that is none");
    EQUAL(now.ss_size, 0, "size of an alternate stack that is none");
    MUST(raise(SIGUSR1));
    EQUAL(seen[0], 1, "a handler without a stack of its own in the first thread");
    MUST(pthread_kill(other_thread, SIGUSR2));
    MUST(pthread_join(other_thread, NULL));
    return end();
}
