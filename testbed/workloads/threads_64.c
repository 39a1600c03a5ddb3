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

/* A working thread goes on, however long it waits for a processor; it never sleeps for longer than it asked for. */
static void verify_running(size_t i, uint64_t count)
{
    char *path = formatted("/proc/self/task/%d/stat", slots[i].id);
    double begin = real_time(), asleep = 0;
    for (int looks = 0; slots[i].count == count;) {
        char *text = contents(path), *state = strrchr(text, ')');
        double now = real_time();
        /* Asleep at two looks with the same count it was in one sleep all the time: awake it counts first of all. */
        looks = state && state[2] == 'S' ? looks + 1 : 0;
        asleep = looks <= 1 ? now : asleep;
        free(text);
        if (looks > 10 && now - asleep > 0.3) {
            fail("thread %zu sleeps for 2 ms, and has not come back for %.2f s", i, now - asleep);
            break;
        }
        if (now - begin > 60) {
            fail("thread %zu does not run for %.0f s", i, now - begin);
            break;
        }
        sleep_seconds(0.01);
    }
    free(path);
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
    for (size_t i = 0; i < THREADS; i += 16)
        verify_running(i, counts[i / 16]);
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
