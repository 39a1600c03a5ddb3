// A process that is always in a signal handler somewhere: what was blocked while an engine worked on it is delivered right before the
// stub gives a thread back, so that the handler's frame leads into the stub. Arguments: a file for the counters, their number.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
static volatile uint64_t counts[THREADS_MAX];
static _Thread_local volatile uint64_t own;

static uint64_t work(uint64_t seed, int rounds) {
    uint64_t a = seed | 1;
    double x = 1.5 + (double)seed;
    for (int i = 0; i < rounds; i++) {
        a = a * 6364136223846793005u ^ seed;
        x = x * 1.0001 + 0.3 + (double)(a & 7);
        if (x > 1e6) x = 1.5;
    }
    return a ^ (uint64_t)(x * 1e6);
}

static void check(int right) {
    if (!right) _exit(9);
}

static void handler(int number) {
    uint64_t before = own, expected = work(before + (uint64_t)number, 2000);
    for (int i = 0; i < 40; i++) check(work(before + (uint64_t)number, 2000) == expected);
    check(own == before);
}

// For who is in the stub: another engine comes while this one waits.
static void long_handler(int number) {
    uint64_t before = own;
    struct timespec pause = {0, 40000000};
    nanosleep(&pause, 0);
    check(number == SIGUSR2 && own == before);
}

static void *busy(void *argument) {
    uint64_t index = (uint64_t)(uintptr_t)argument;
    own = index;
    // Every other one has its handlers on a stack of their own.
    if (index % 2) {
        stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
        check(stack.ss_sp && sigaltstack(&stack, 0) == 0);
    }
    uint64_t expected = work(index, 20000);
    for (;;) {
        check(work(index, 20000) == expected);
        if (index % 3 == 0) {
            struct timespec pause = {0, 1000000};
            nanosleep(&pause, 0);
        }
        counts[index]++;
    }
}

int main(int argc, char **argv) {
    check(argc == 3);
    int file = open(argv[1], O_CREAT | O_RDWR | O_TRUNC, 0600), threads = atoi(argv[2]);
    check(file >= 0 && threads > 0 && threads <= THREADS_MAX);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK};
    check(sigaction(SIGALRM, &action, 0) == 0 && sigaction(SIGUSR1, &action, 0) == 0);
    action.sa_handler = long_handler;
    check(sigaction(SIGUSR2, &action, 0) == 0);
    pthread_t started[THREADS_MAX];
    for (int i = 0; i < threads; i++) check(pthread_create(&started[i], 0, busy, (void *)(uintptr_t)i) == 0);
    struct itimerval often = {{0, 4000}, {0, 4000}};
    check(setitimer(ITIMER_REAL, &often, 0) == 0);
    for (int turn = 0;; turn++) {
        check(pwrite(file, (const void *)counts, (size_t)threads * 8, 0) == threads * 8);
        check(pthread_kill(started[turn % threads], SIGUSR1) == 0);
        struct timespec pause = {0, 3000000};
        nanosleep(&pause, 0);
    }
}
