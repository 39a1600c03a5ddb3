/* workload: vfork_exec; kind: task; user: any; about: threads that vfork all the time, with children that take their time to execute a program */
#include "workload.h"

#define THREADS 3

static atomic_bool stop;
static atomic_ulong rounds[THREADS];

/* In its parent's memory, whose registers it must not disturb: what it changes there is seen. */
static void *run(void *argument)
{
    size_t index = (size_t)argument;
    char status_word[2] = {(char)('1' + index), 0};
    char *const arguments[] = {"sh", "-c", formatted("exit %s", status_word), NULL};
    while (!stop) {
        volatile unsigned long written = 0;
        pid_t pid = vfork();
        if (pid == 0) {
            struct timespec time = {0, 15000000};
            nanosleep(&time, NULL);
            written = 4711 + index;
            if (rounds[index] % 3 == 2)
                _exit((int)index + 1);
            execv("/bin/sh", arguments);
            _exit(99);
        }
        if (pid < 0)
            fail("vfork: %s", strerror(errno));
        EQUAL(written, 4711 + index, "memory shared with a vforked child");
        int status = -1;
        EQUAL(waitpid(pid, &status, 0), pid, "waitpid");
        EQUAL(status, ((int)index + 1) << 8, "status of a vforked child");
        rounds[index]++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        threads[i] = thread(run, (void *)i);
    while (rounds[0] < 1 || rounds[1] < 1 || rounds[2] < 1)
        sched_yield();
    ready();
    while (running())
        ;
    unsigned long before[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        before[i] = rounds[i];
    for (int left = 5000; left > 0; left--) {
        bool all = true;
        for (size_t i = 0; i < THREADS; i++)
            all = all && rounds[i] > before[i];
        if (all)
            break;
        sleep_seconds(0.001);
    }
    for (size_t i = 0; i < THREADS; i++)
        CHECK(rounds[i] > before[i], "thread %zu makes no children any more", i);
    stop = true;
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return end();
}
