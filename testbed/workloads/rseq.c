/* workload: rseq; kind: processor; user: any; about: restartable sequences: the registration and that a sequence cut by the freeze starts over */
#include "workload.h"
#include <linux/rseq.h>
#include <sys/rseq.h>

#define THREADS 3
static atomic_bool stop;
static uint64_t shared_count;
static atomic_ullong done;
static uint64_t aborts;

static struct rseq *area(void) { return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset); }

/* One increment of a plain counter by threads of one processor: a long sequence between load and store that must begin
 * anew whenever the thread was preempted or moved within it. Returns whether it was cut. */
static bool add_one(uint64_t *counter, struct rseq *rseq)
{
    __asm__ goto volatile(
        ".pushsection __rseq_cs, \"aw\"\n"
        ".balign 32\n"
        "3: .long 0, 0\n .quad 1f, 2f - 1f, 4f\n"
        ".popsection\n"
        "lea 3b(%%rip), %%rax\n"
        "mov %%rax, 8(%[rseq])\n"
        "1:\n"
        "mov (%[counter]), %%rax\n"
        "mov $2000, %%ecx\n"
        "5: dec %%ecx\n jnz 5b\n"
        "inc %%rax\n"
        "mov %%rax, (%[counter])\n"
        "2:\n"
        ".pushsection __rseq_failure, \"ax\"\n"
        ".byte 0x0f, 0xb9, 0x3d\n .long 0x53053053\n"
        "4: jmp %l[cut]\n"
        ".popsection\n"
        :
        : [rseq] "r"(rseq), [counter] "r"(counter)
        : "rax", "rcx", "memory", "cc"
        : cut);
    return false;
cut:
    return true;
}

static void *run(void *unused)
{
    (void)unused;
    struct rseq *rseq = area();
    while (!stop) {
        if (add_one(&shared_count, rseq))
            __atomic_fetch_add(&aborts, 1, __ATOMIC_RELAXED);
        else
            done++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (__rseq_size == 0)
        skip("the C library has not registered rseq");
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    pthread_t threads[THREADS];
    MUST(sched_setaffinity(0, sizeof one, &one));
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread(run, NULL);
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    MUST(sched_setaffinity(0, sizeof all, &all));
    unsigned int flags = __rseq_flags;
    struct rseq *place = area();
    ready();
    while (running())
        ;
    stop = true;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    EQUAL(shared_count, done, "increments of a per-processor counter");
    CHECK(aborts > 0, "no sequence was ever cut: nothing was shown");
    EQUAL(__rseq_flags, flags, "rseq flags");
    EQUAL(area(), place, "rseq area");
    /* Registered still: the kernel keeps the processor's number there, and refuses a second registration. */
    for (int i = 0; i < 1000; i++) {
        CPU_ZERO(&one);
        cpu_set_t allowed;
        sched_getaffinity(0, sizeof allowed, &allowed);
        int cpu = i % CPU_SETSIZE;
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one) == 0)
            EQUAL(__atomic_load_n(&place->cpu_id, __ATOMIC_RELAXED), cpu, "processor in the rseq area");
        sched_setaffinity(0, sizeof allowed, &allowed);
    }
    EQUAL(syscall(SYS_rseq, place, 32, 0, 0x53053053), -1, "a second registration");
    EQUAL(errno, EBUSY, "errno of a second registration");
    return end();
}
