/* workload: robust_mutex; kind: processor; user: any; about: robust lists: a lock whose owner dies after the move tells so */
#include "workload.h"
#include <linux/futex.h>

static struct shared {
    pthread_mutex_t by_child, by_thread;
    atomic_int locked;
} *shared;
static void *list_before;

static void *robust_list(void)
{
    void *head = NULL;
    size_t length = 0;
    MUST(syscall(SYS_get_robust_list, 0, &head, &length));
    EQUAL(length, sizeof(struct robust_list_head), "length of the robust list head");
    return head;
}

static void hold_in_child(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&shared->by_child);
    shared->locked++;
    while (running())
        ;
}

static void *hold_in_thread(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&shared->by_thread);
    void *before = robust_list();
    shared->locked++;
    while (shared->locked < 3)
        sleep_seconds(0.001);
    EQUAL(robust_list(), before, "robust list head of a thread");
    return NULL; /* ends without unlocking */
}

static void verify_dead_owner(pthread_mutex_t *mutex, const char *what)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 5;
    int result = pthread_mutex_timedlock(mutex, &deadline);
    CHECK(result == EOWNERDEAD, "%s: %s, not EOWNERDEAD", what, strerror(result));
    if (result == EOWNERDEAD) {
        EQUAL(pthread_mutex_consistent(mutex), 0, "pthread_mutex_consistent");
        pthread_mutex_unlock(mutex);
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&shared->by_child, &robust);
    pthread_mutex_init(&shared->by_thread, &robust);
    pid_t pid = child(hold_in_child, NULL);
    pthread_t owner = thread(hold_in_thread, NULL);
    while (shared->locked < 2)
        sched_yield();
    list_before = robust_list();
    ready();
    while (running())
        ;
    EQUAL(robust_list(), list_before, "robust list head");
    EQUAL(pthread_mutex_trylock(&shared->by_child), EBUSY, "trylock of a lock held by a child");
    EQUAL(pthread_mutex_trylock(&shared->by_thread), EBUSY, "trylock of a lock held by a thread");
    shared->locked++;
    stop_and_collect(pid);
    verify_dead_owner(&shared->by_child, "lock of an ended child");
    pthread_join(owner, NULL);
    verify_dead_owner(&shared->by_thread, "lock of an ended thread");
    return end();
}
