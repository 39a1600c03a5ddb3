/* workload: threads_changing; kind: task; user: any; about: threads that end and are followed by others all the time, beside some that stay: who is there when it is looked at is not who is there when it is frozen */
#include "workload.h"

#define STAYING 24
#define CHANGING 24

struct slot {
    pid_t id;
    pthread_t thread;
    uint64_t pattern[32];
};
static struct slot staying[STAYING], changing[CHANGING];
static atomic_bool stop;
static atomic_llong generations;

static void verify(const struct slot *slot, uint64_t seed)
{
    uint64_t pattern[32];
    memcpy(pattern, slot->pattern, sizeof pattern);
    EQUAL(gettid(), slot->id, "id of a thread");
    EQUAL(syscall(SYS_getpid), getpid(), "id of its process");
    verify_fill(pattern, sizeof pattern, seed, "memory of a thread");
}

static void *stay(void *argument)
{
    struct slot *slot = argument;
    uint64_t seed = (uint64_t)(slot - staying);
    slot->id = gettid();
    fill(slot->pattern, sizeof slot->pattern, seed);
    while (!stop) {
        verify(slot, seed);
        sleep_seconds(0.002);
    }
    return (void *)(seed + 1);
}

static void *change(void *argument)
{
    struct slot *slot = argument;
    uint64_t seed = (uint64_t)slot->id; /* what its maker has put there */
    slot->id = gettid();
    fill(slot->pattern, sizeof slot->pattern, seed);
    for (int turn = 0; turn < 4 && !stop; turn++) {
        sleep_seconds(0.001);
        verify(slot, seed);
    }
    generations++;
    return (void *)(seed + 1);
}

/* Has each of the others followed by a new one when it has ended. */
static void *follow(void *argument)
{
    (void)argument;
    pid_t seeds[CHANGING] = {0};
    for (int round = 0; !stop; round++) {
        for (size_t i = 0; i < CHANGING; i++) {
            void *result;
            if (round > 0) {
                EQUAL(pthread_join(changing[i].thread, &result), 0, "pthread_join");
                EQUAL(result, seeds[i] + 1, "result of a thread");
            }
            changing[i].id = seeds[i] = (pid_t)(round * CHANGING + (int)i);
            if ((errno = pthread_create(&changing[i].thread, NULL, change, &changing[i])))
                die("thread %zu of round %d: %s", i, round, strerror(errno));
        }
    }
    for (size_t i = 0; i < CHANGING; i++)
        EQUAL(pthread_join(changing[i].thread, NULL), 0, "pthread_join");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t follower;
    for (size_t i = 0; i < STAYING; i++)
        if ((errno = pthread_create(&staying[i].thread, NULL, stay, &staying[i])))
            die("thread %zu: %s", i, strerror(errno));
    if ((errno = pthread_create(&follower, NULL, follow, NULL)))
        die("follower: %s", strerror(errno));
    while (generations < CHANGING)
        sleep_seconds(0.001);
    ready();
    while (running())
        ;
    long long before = generations;
    for (int look = 0; generations < before + CHANGING && look < 10000; look++)
        sleep_seconds(0.001);
    CHECK(generations >= before + CHANGING, "threads do not follow each other any more: %lld", generations - before);
    stop = true;
    EQUAL(pthread_join(follower, NULL), 0, "pthread_join");
    for (size_t i = 0; i < STAYING; i++) {
        void *result;
        EQUAL(pthread_join(staying[i].thread, &result), 0, "pthread_join");
        EQUAL(result, i + 1, "result of a thread");
    }
    return end();
}
