/* workload: getpid; kind: task; user: any; about: a loop that asks the kernel who it is */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t pid = getpid(), tid = gettid(), group = getpgrp(), session = getsid(0);
    uid_t user = getuid();
    uint64_t rounds = 0, sum = 0, expected = 0;
    ready();
    while (running())
        for (int i = 0; i < 1000; i++) {
            pid_t now = (pid_t)syscall(SYS_getpid);
            sum += (uint64_t)now;
            expected += (uint64_t)pid;
            rounds++;
        }
    EQUAL(sum, expected, "sum of pids");
    EQUAL(rounds % 1000, 0, "rounds");
    EQUAL(getpid(), pid, "getpid");
    EQUAL(gettid(), tid, "gettid");
    EQUAL(getpgrp(), group, "process group");
    EQUAL(getsid(0), session, "session");
    EQUAL(getuid(), user, "user");
    return end();
}
