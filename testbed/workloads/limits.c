/* workload: limits; kind: rights; user: any; about: resource limits, soft below hard, and the out-of-memory score adjustment */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct rlimit before[RLIM_NLIMITS], now;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        MUST(getrlimit((__rlimit_resource_t)i, &before[i]));
        if (i == RLIMIT_CPU || i == RLIMIT_NPROC || i == RLIMIT_AS || i == RLIMIT_DATA)
            continue;
        if (before[i].rlim_max == RLIM_INFINITY && i != RLIMIT_STACK)
            before[i].rlim_max = 1000000007UL + (rlim_t)i;
        if (i == RLIMIT_NICE || i == RLIMIT_RTPRIO)
            continue;
        before[i].rlim_cur = before[i].rlim_max / 2 + (rlim_t)i;
        if (before[i].rlim_max == RLIM_INFINITY || before[i].rlim_cur > before[i].rlim_max)
            before[i].rlim_cur = before[i].rlim_max == RLIM_INFINITY ? 64 * MIB : before[i].rlim_max;
        MUST(setrlimit((__rlimit_resource_t)i, &before[i]));
    }
    for (int i = 0; i < RLIM_NLIMITS; i++)
        MUST(getrlimit((__rlimit_resource_t)i, &before[i]));
    int fd = MUST(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
    EQUAL(write(fd, "333", 3), 3, "writing the out-of-memory score adjustment");
    close(fd);
    ready();
    while (running())
        ;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        EXPECT(getrlimit((__rlimit_resource_t)i, &now));
        CHECK(now.rlim_cur == before[i].rlim_cur && now.rlim_max == before[i].rlim_max, "limit %d: %lu/%lu, was %lu/%lu", i,
              now.rlim_cur, now.rlim_max, before[i].rlim_cur, before[i].rlim_max);
    }
    char *score = contents("/proc/self/oom_score_adj");
    verify_text(score, "333\n", "out-of-memory score adjustment");
    return end();
}
