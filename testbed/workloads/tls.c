/* workload: tls; kind: processor; user: any; about: thread-local storage, errno and segment bases of five threads */
#include "workload.h"
#include <asm/prctl.h>

static __thread uint64_t local = 7;
static __thread char text[3000];
static pthread_key_t key;
static atomic_int up, stop;

static unsigned long base(int which)
{
    unsigned long value = 0;
    MUST(syscall(SYS_arch_prctl, which, &value));
    return value;
}

static void *run(void *argument)
{
    uint64_t seed = (uint64_t)argument;
    unsigned long gs = 0x1000 * seed + 0x7000000000;
    MUST(syscall(SYS_arch_prctl, ARCH_SET_GS, gs));
    unsigned long fs = base(ARCH_GET_FS);
    pthread_t self = pthread_self();
    uint64_t *place = &local;
    pthread_setspecific(key, (void *)(seed * 11));
    local = seed * 5;
    fill(text, sizeof text, seed);
    errno = (int)seed + 40;
    up++;
    while (!stop) {
        local++;
        CHECK(errno == (int)seed + 40, "errno of thread %d: %d", (int)seed, errno);
        local--;
        struct timespec time = {0, 500000};
        syscall(SYS_nanosleep, &time, NULL);
        errno = (int)seed + 40;
    }
    EQUAL(local, seed * 5, "thread-local number");
    EQUAL(&local, place, "address of a thread-local variable");
    EQUAL(pthread_self(), self, "pthread_self");
    EQUAL(pthread_getspecific(key), seed * 11, "thread-specific value");
    verify_fill(text, sizeof text, seed, "thread-local text");
    EQUAL(base(ARCH_GET_FS), fs, "FS base");
    EQUAL(base(ARCH_GET_GS), gs, "GS base");
    return (void *)seed;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t threads[4];
    pthread_key_create(&key, NULL);
    for (uint64_t i = 0; i < 4; i++)
        threads[i] = thread(run, (void *)(i + 1));
    while (up < 4)
        sched_yield();
    fill(text, sizeof text, 99);
    ready();
    while (running())
        ;
    stop = 1;
    for (uint64_t i = 0; i < 4; i++) {
        void *result;
        EQUAL(pthread_join(threads[i], &result), 0, "pthread_join");
        EQUAL(result, i + 1, "result of a thread");
    }
    EQUAL(local, 7, "thread-local number of the main thread");
    verify_fill(text, sizeof text, 99, "thread-local text of the main thread");
    return end();
}
