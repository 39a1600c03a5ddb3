/* workload: registers; kind: processor; user: any; about: general, x87, SSE, AVX, AVX-512 registers, flags and control words, held while it spins */
#include "workload.h"

struct block {
    uint64_t general[14];          /*   0: rax rbx rsi rdi rbp r8-r15 and a spare */
    uint64_t flags;                /* 112 */
    uint32_t mxcsr;                /* 120 */
    uint16_t control, spare;       /* 124 */
    uint64_t masks[8];             /* 128 */
    uint8_t x87[8][16];            /* 192 */
    uint8_t vector[32][64];        /* 320 */
} __attribute__((aligned(64)));

struct job {
    struct block in, out;
    atomic_int stop, started;
    int width;
};

/* Loads everything, spins without touching a register or flag that was loaded (mov and jrcxz change none), stores.
 * rdx points to the stop flag, rcx receives it. */
static void hold(struct job *job)
{
    struct block *in = &job->in, *out = &job->out;
#define EACH16(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define HIGH16(M) M(16) M(17) M(18) M(19) M(20) M(21) M(22) M(23) M(24) M(25) M(26) M(27) M(28) M(29) M(30) M(31)
#define LOAD_X(n) "movups 320+64*" #n "(%%rax), %%xmm" #n "\n"
#define SAVE_X(n) "movups %%xmm" #n ", 320+64*" #n "(%%rax)\n"
#define LOAD_Y(n) "vmovups 320+64*" #n "(%%rax), %%ymm" #n "\n"
#define SAVE_Y(n) "vmovups %%ymm" #n ", 320+64*" #n "(%%rax)\n"
#define LOAD_Z(n) "vmovups 320+64*" #n "(%%rax), %%zmm" #n "\n"
#define SAVE_Z(n) "vmovups %%zmm" #n ", 320+64*" #n "(%%rax)\n"
#define LOAD_K(n) "kmovq 128+8*" #n "(%%rax), %%k" #n "\n"
#define SAVE_K(n) "kmovq %%k" #n ", 128+8*" #n "(%%rax)\n"
#define EACH8(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define BODY(LOAD, SAVE)                                                                                               \
    __asm__ volatile(                                                                                                  \
        "sub $128, %%rsp\n push %%rbx\n push %%rbp\n push %[out]\n push %[in]\n mov %[in], %%rax\n mov %[stop], %%rdx\n" \
        "fninit\n fldt 192+112(%%rax)\n fldt 192+96(%%rax)\n fldt 192+80(%%rax)\n fldt 192+64(%%rax)\n"                 \
        "fldt 192+48(%%rax)\n fldt 192+32(%%rax)\n fldt 192+16(%%rax)\n fldt 192(%%rax)\n"                              \
        "fldcw 124(%%rax)\n ldmxcsr 120(%%rax)\n" LOAD                                                                 \
        "mov 8(%%rax), %%rbx\n mov 16(%%rax), %%rsi\n mov 24(%%rax), %%rdi\n mov 32(%%rax), %%rbp\n"                    \
        "mov 40(%%rax), %%r8\n mov 48(%%rax), %%r9\n mov 56(%%rax), %%r10\n mov 64(%%rax), %%r11\n"                     \
        "mov 72(%%rax), %%r12\n mov 80(%%rax), %%r13\n mov 88(%%rax), %%r14\n mov 96(%%rax), %%r15\n"                   \
        "pushq 112(%%rax)\n mov 0(%%rax), %%rax\n movl $1, 4(%%rdx)\n popfq\n"                                          \
        "1: movl (%%rdx), %%ecx\n jrcxz 1b\n"                                                                          \
        "pushfq\n cld\n mov %%rax, %%rcx\n mov 16(%%rsp), %%rax\n mov %%rcx, 0(%%rax)\n pop %%rcx\n mov %%rcx, 112(%%rax)\n"  \
        "mov %%rbx, 8(%%rax)\n mov %%rsi, 16(%%rax)\n mov %%rdi, 24(%%rax)\n mov %%rbp, 32(%%rax)\n"                    \
        "mov %%r8, 40(%%rax)\n mov %%r9, 48(%%rax)\n mov %%r10, 56(%%rax)\n mov %%r11, 64(%%rax)\n"                     \
        "mov %%r12, 72(%%rax)\n mov %%r13, 80(%%rax)\n mov %%r14, 88(%%rax)\n mov %%r15, 96(%%rax)\n" SAVE              \
        "stmxcsr 120(%%rax)\n fnstcw 124(%%rax)\n"                                                                     \
        "fstpt 192(%%rax)\n fstpt 192+16(%%rax)\n fstpt 192+32(%%rax)\n fstpt 192+48(%%rax)\n"                          \
        "fstpt 192+64(%%rax)\n fstpt 192+80(%%rax)\n fstpt 192+96(%%rax)\n fstpt 192+112(%%rax)\n"                      \
        "fninit\n pushq $0x1f80\n ldmxcsr (%%rsp)\n pop %%rcx\n"                                                        \
        "pop %%rcx\n pop %%rcx\n pop %%rbp\n pop %%rbx\n add $128, %%rsp\n"                                              \
        :                                                                                                              \
        : [in] "D"(in), [out] "S"(out), [stop] "d"(&job->stop)                                                          \
        : "memory", "cc", "rax", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2",   \
          "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")
    if (job->width == 64)
        BODY(EACH16(LOAD_Z) HIGH16(LOAD_Z) EACH8(LOAD_K), EACH16(SAVE_Z) HIGH16(SAVE_Z) EACH8(SAVE_K) "vzeroupper\n");
    else if (job->width == 32)
        BODY(EACH16(LOAD_Y), EACH16(SAVE_Y) "vzeroupper\n");
    else
        BODY(EACH16(LOAD_X), EACH16(SAVE_X));
}

static void *run(void *argument)
{
    hold(argument);
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    static struct job jobs[3];
    pthread_t threads[COUNT(jobs)];
    int widest = __builtin_cpu_supports("avx512bw") ? 64 : __builtin_cpu_supports("avx") ? 32 : 16;
    int widths[] = {widest, widest > 32 ? 32 : widest, 16};
    for (size_t i = 0; i < COUNT(jobs); i++) {
        struct block *in = &jobs[i].in;
        jobs[i].width = widths[i];
        fill(in, sizeof *in, 100 + i);
        /* Flags: carry, parity, adjust, zero, sign, direction, overflow, in another mixture for each thread. */
        uint64_t mixtures[] = {0xcd5 | 0x202, 0x401 | 0x202, 0x8c0 | 0x202};
        in->flags = mixtures[i];
        in->mxcsr = i == 0 ? 0xffbf : i == 1 ? 0x1fa0 : 0x7f81;
        in->control = i == 0 ? 0x0f7f : i == 1 ? 0x027f : 0x0b7f;
        for (int k = 0; k < 8; k++) {
            long double number = (long double)(k + 1) / 3 * (k % 2 ? -1 : 1) * (long double)(i + 1);
            memset(in->x87[k], 0, 16);
            memcpy(in->x87[k], &number, 10);
        }
        threads[i] = thread(run, &jobs[i]);
        while (!jobs[i].started)
            sched_yield();
    }
    ready();
    while (running())
        ;
    for (size_t i = 0; i < COUNT(jobs); i++) {
        jobs[i].stop = 1;
        pthread_join(threads[i], NULL);
        struct block *in = &jobs[i].in, *out = &jobs[i].out;
        for (int k = 0; k < 13; k++)
            EQUAL(out->general[k], in->general[k], "general register");
        EQUAL(out->flags, in->flags, "flags");
        EQUAL(out->mxcsr, in->mxcsr, "mxcsr");
        EQUAL(out->control, in->control, "x87 control word");
        CHECK(memcmp(out->x87, in->x87, sizeof in->x87) == 0, "x87 registers differ");
        if (jobs[i].width == 64)
            CHECK(memcmp(out->masks, in->masks, sizeof in->masks) == 0, "mask registers differ");
        for (int k = 0; k < (jobs[i].width == 64 ? 32 : 16); k++)
            CHECK(memcmp(out->vector[k], in->vector[k], (size_t)jobs[i].width) == 0,
                  "vector register %d (%d bytes) differs: %016llx, was %016llx", k, jobs[i].width,
                  *(unsigned long long *)out->vector[k], *(unsigned long long *)in->vector[k]);
    }
    return end();
}
