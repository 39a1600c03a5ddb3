/* BOARD COUNT: a process of so many threads, its first one included; all others sleep in a futex. */
#include "board.h"

static _Atomic uint32_t gate, passed;
static __thread uint64_t own;

static void *sleeper(void *argument)
{
    own = mixed((uintptr_t)argument);
    atomic_fetch_add(&passed, 1);
    while (!gate)
        syscall(SYS_futex, &gate, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    EXPECT(own == mixed((uintptr_t)argument), "thread %zu lost its own variable", (size_t)argument);
    atomic_fetch_add(&passed, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t count = argc > 2 ? strtoull(argv[2], NULL, 10) - 1 : 0;
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    for (size_t i = 0; i < count; i++) {
        int error = pthread_create(&threads[i], &attributes, sleeper, (void *)i);
        EXPECT(error == 0, "thread %zu: %s", i, strerror(error));
    }
    while (passed < count)
        nap();
    passed = 0;
    work();
    gate = 1;
    syscall(SYS_futex, &gate, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    EXPECT(passed == count, "%u of %zu threads went on", passed, count);
    return end();
}
