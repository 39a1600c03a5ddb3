/* workload: stack_growth; kind: memory; user: any; about: a deep stack with contents, and a stack that has to grow after the move */
#include "workload.h"

static __attribute__((noinline)) uint64_t deep(int level, uint64_t seed)
{
    char frame[4000];
    fill(frame, sizeof frame, seed + (uint64_t)level);
    uint64_t sum = level > 0 ? deep(level - 1, seed) : 0;
    verify_fill(frame, sizeof frame, seed + (uint64_t)level, "a frame");
    return sum + 1;
}

static __attribute__((noinline)) uint64_t hold(int level)
{
    char frame[4000];
    fill(frame, sizeof frame, (uint64_t)level);
    uint64_t sum = 0;
    if (level > 0) {
        sum = hold(level - 1);
    } else {
        ready();
        while (running())
            ;
        sum = deep(1500, 5000000); /* 6 MB: the limit is 8 */
        EQUAL(sum, 1501, "frames below");
        sum = 0;
    }
    verify_fill(frame, sizeof frame, (uint64_t)level, "a frame held during the move");
    return sum + 1;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct rlimit limit;
    getrlimit(RLIMIT_STACK, &limit);
    if (limit.rlim_cur < 8 * MIB)
        skip("the stack may not grow to 8 MiB");
    EQUAL(hold(100), 101, "frames held");
    return end();
}
