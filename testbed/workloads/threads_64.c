/* workload: threads_64; kind: task; user: any; about: 64 threads, sleeping, yielding and counting, with names and stacks of their own */
#ifndef THREADS
#define THREADS 64
#endif
#include "workload.h"

static struct slot {
    pid_t id;
    uint64_t count;
    pthread_t thread;
} slots[THREADS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int up;
static bool stop;
static atomic_bool spin_stop;

static void *run(void *argument)
{
    struct slot *slot = argument;
    uint64_t seed = (uint64_t)(slot - slots), pattern[64];
    char name[16], now[16];
    fill(pattern, sizeof pattern, seed);
    snprintf(name, sizeof name, "worker %d", (int)seed);
    MUST(prctl(PR_SET_NAME, name));
    pthread_mutex_lock(&lock);
    slot->id = gettid();
    up++;
    pthread_cond_broadcast(&wake);
    if (seed % 16 == 0) { /* a few work */
        pthread_mutex_unlock(&lock);
        while (!spin_stop) {
            slot->count++;
            for (int i = 0; i < 64; i++)
                pattern[i] ^= slot->count;
            for (int i = 0; i < 64; i++)
                pattern[i] ^= slot->count;
            sched_yield();
            struct timespec time = {0, 2000000};
            if (slot->count % 100 == 0)
                nanosleep(&time, NULL);
        }
    } else { /* the others wait */
        while (!stop)
            pthread_cond_wait(&wake, &lock);
        pthread_mutex_unlock(&lock);
    }
    EQUAL(gettid(), slot->id, "id of a thread");
    EXPECT(prctl(PR_GET_NAME, now));
    verify_text(now, name, "name of a thread");
    verify_fill(pattern, sizeof pattern, seed, "stack of a thread");
    return (void *)(seed + 1);
}

static int tasks(void)
{
    char *text = field("/proc/self/status", "Threads");
    int number = atoi(text);
    free(text);
    return number;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * KIB);
    for (size_t i = 0; i < THREADS; i++)
        if ((errno = pthread_create(&slots[i].thread, &attributes, run, &slots[i])))
            die("thread %zu: %s", i, strerror(errno));
    pthread_mutex_lock(&lock);
    while (up < THREADS)
        pthread_cond_wait(&wake, &lock);
    pthread_mutex_unlock(&lock);
    ready();
    while (running())
        ;
    EQUAL(tasks(), THREADS + 1, "number of threads");
    for (size_t i = 0; i < THREADS; i++) {
        char *path = formatted("/proc/self/task/%d/comm", slots[i].id), *name = contents(path);
        char *expected = formatted("worker %zu\n", i);
        verify_text(name, expected, "name of a thread in /proc");
        free(path), free(name), free(expected);
    }
    uint64_t counts[THREADS / 16 + 1];
    for (size_t i = 0; i < THREADS; i += 16)
        counts[i / 16] = slots[i].count;
    sleep_seconds(0.3);
    for (size_t i = 0; i < THREADS; i += 16) {
        /* How late it is tells whether it waits for a processor or for something else. */
        double late = 0.3;
        for (; slots[i].count == counts[i / 16] && late < 20; late += 0.01)
            sleep_seconds(0.01);
        CHECK(late <= 0.3, "thread %zu does not run for %.2f s", i, late);
    }
    spin_stop = true;
    pthread_mutex_lock(&lock);
    stop = true;
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < THREADS; i++) {
        void *result;
        EQUAL(pthread_join(slots[i].thread, &result), 0, "pthread_join");
        EQUAL(result, i + 1, "result of a thread");
    }
    /* The kernel tells of a thread's end a moment before the thread is gone from /proc. */
    for (int look = 0; tasks() != 1 && look < 1000; look++)
        sleep_seconds(0.001);
    EQUAL(tasks(), 1, "threads after joining");
    return end();
}
