/* workload: threads_restless; kind: task; user: any; about: many threads with small stacks: some stay as they are, the others change their names, masks, alternate stacks, robust lists, restartable sequences, and where these lie, all the time; each compares what the kernel has with what it has set last */
#include "workload.h"
#include <linux/futex.h>
#include <sys/rseq.h>

#define THREADS 96
#define AREA (2 * PAGE)
/* struct robust_list_head. */
struct head {
    void *next;
    long offset;
    void *pending;
};
struct thread {
    pthread_t thread;
    int number;
    pid_t id;
    bool restless;
    /* What the kernel has. */
    char name[16];
    sigset_t mask;
    stack_t stack;
    struct head *robust;
    void *sequence;
    /* Two lists to choose from. */
    struct head heads[2];
    char *areas[2];
    char stacks[2][16 * KIB];
};
static struct thread *threads;
static atomic_bool stop;
static atomic_int up;

static uint32_t sequence_length(void) { return __rseq_size < 32 ? 32 : __rseq_size; }

static long sequences(void *address, int flags)
{
    return syscall(SYS_rseq, address, sequence_length(), flags, RSEQ_SIG);
}

static void choose_name(struct thread *own, int round)
{
    snprintf(own->name, sizeof own->name, "%d in %d", own->number, round % 1000);
    MUST(prctl(PR_SET_NAME, own->name));
}

static void choose_mask(struct thread *own, int round)
{
    sigemptyset(&own->mask);
    sigaddset(&own->mask, SIGTERM); /* whether it waits tells when to end */
    sigaddset(&own->mask, round % 2 ? SIGUSR1 : SIGUSR2);
    sigaddset(&own->mask, SIGRTMIN + (own->number + round) % 20);
    EQUAL(pthread_sigmask(SIG_SETMASK, &own->mask, NULL), 0, "pthread_sigmask");
}

static void choose_stack(struct thread *own, int round)
{
    own->stack = (stack_t){.ss_sp = own->stacks[round % 2], .ss_size = sizeof own->stacks[0]};
    if (round % 3 == 0)
        own->stack = (stack_t){.ss_flags = SS_DISABLE};
    MUST(sigaltstack(&own->stack, NULL));
}

static void choose_list(struct thread *own, int round)
{
    own->robust = &own->heads[round % 2];
    own->robust->next = &own->robust->next;
    MUST(syscall(SYS_set_robust_list, own->robust, sizeof *own->robust));
}

/* In an area of its own, which comes and goes. */
static void choose_sequence(struct thread *own, int round)
{
    char **area = &own->areas[round % 2];
    if (*area)
        MUST(munmap(*area, AREA));
    *area = MUST(mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    /* No neighbour that it could be joined with. */
    MUST(mprotect(*area, PAGE, PROT_READ));
    char *next = *area + PAGE + 256;
    if (own->sequence)
        MUST(sequences(own->sequence, RSEQ_FLAG_UNREGISTER));
    own->sequence = next;
    MUST(sequences(next, 0));
}

static void verify(struct thread *own)
{
    char name[17] = "";
    stack_t stack;
    sigset_t mask;
    struct head *robust;
    size_t length;
    EQUAL(gettid(), own->id, "id of a thread");
    EXPECT(prctl(PR_GET_NAME, name));
    verify_text(name, own->name, "name of a thread");
    EXPECT(sigaltstack(NULL, &stack));
    EQUAL(stack.ss_flags, own->stack.ss_flags, "flags of an alternate stack");
    EQUAL((uintptr_t)stack.ss_sp, (uintptr_t)own->stack.ss_sp, "alternate stack");
    EQUAL(stack.ss_size, own->stack.ss_size, "size of an alternate stack");
    EQUAL(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0, "pthread_sigmask");
    for (int signal = 1; signal < SIGRTMIN + 20; signal++)
        if (signal < 32 || signal >= SIGRTMIN)
            EQUAL(sigismember(&mask, signal), sigismember(&own->mask, signal), "a blocked signal");
    EXPECT(syscall(SYS_get_robust_list, 0, &robust, &length));
    EQUAL((uintptr_t)robust, (uintptr_t)own->robust, "list of robust mutexes");
    if (own->sequence) {
        /* The same once more is EBUSY; anything else would be another error, or none. */
        long result = sequences(own->sequence, 0);
        int error = errno;
        CHECK(result == -1 && error == EBUSY, "restartable sequences: %ld, %s", result, strerror(error));
        struct rseq *sequence = own->sequence;
        CHECK(sequence->cpu_id < 4096, "processor of restartable sequences: %u", sequence->cpu_id);
    }
}

static void *run(void *argument)
{
    struct thread *own = argument;
    own->id = gettid();
    own->restless = own->number % 3 == 0;
    own->sequence = __rseq_size ? (char *)__builtin_thread_pointer() + __rseq_offset : NULL;
    choose_name(own, 0);
    choose_mask(own, own->number);
    choose_stack(own, own->number);
    choose_list(own, own->number);
    up++;
    for (int round = 0; !stop; round++) {
        verify(own);
        if (own->restless) {
            choose_name(own, round);
            choose_mask(own, round);
            choose_stack(own, round);
            choose_list(own, round);
            if (own->sequence && own->number % 2)
                choose_sequence(own, round);
        }
        sleep_seconds(0.002);
    }
    verify(own);
    /* What lies in memory that it does not have at its end. */
    if (own->sequence)
        EXPECT(sequences(own->sequence, RSEQ_FLAG_UNREGISTER));
    return own;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    threads = MUST(mmap(NULL, THREADS * sizeof *threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * KIB);
    for (int i = 0; i < THREADS; i++) {
        threads[i].number = i;
        if ((errno = pthread_create(&threads[i].thread, &attributes, run, &threads[i])))
            die("thread %d: %s", i, strerror(errno));
    }
    while (up < THREADS)
        sleep_seconds(0.001);
    ready();
    while (running())
        ;
    sleep_seconds(0.01);
    stop = true;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        EQUAL(pthread_join(threads[i].thread, &result), 0, "pthread_join");
        EQUAL((uintptr_t)result, (uintptr_t)&threads[i], "result of a thread");
    }
    return end();
}
