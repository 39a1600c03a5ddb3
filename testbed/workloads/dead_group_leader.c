/* workload: dead_group_leader; kind: task; user: any; about: a process group whose leader has ended */
#include "workload.h"

static atomic_int *step;

static void wait_for_two(void *unused)
{
    (void)unused;
    while (*step < 2)
        sched_yield();
}

static void member(void *unused)
{
    (void)unused;
    while (*step < 3)
        sched_yield();
    pid_t group = getpgrp();
    *step = 4;
    while (running())
        ;
    EQUAL(getpgrp(), group, "group whose leader has ended");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t leader = child(wait_for_two, NULL), one = child(member, NULL), two = child(member, NULL);
    MUST(setpgid(leader, leader));
    MUST(setpgid(one, leader));
    MUST(setpgid(two, leader));
    *step = 2;
    collect(leader);
    *step = 3;
    while (*step < 4)
        sched_yield();
    sleep_seconds(0.02);
    ready();
    while (running())
        ;
    EQUAL(kill(leader, 0), -1, "a signal to the leader that has ended");
    EQUAL(getpgid(one), leader, "group of the first");
    EQUAL(getpgid(two), leader, "group of the second");
    EXPECT(kill(-leader, SIGTERM));
    int status;
    EQUAL(waitpid(-leader, &status, 0) > 0, 1, "waitpid for the group");
    EQUAL(status, 0, "status of a member");
    EQUAL(waitpid(-leader, &status, 0) > 0, 1, "waitpid for the group");
    EQUAL(status, 0, "status of a member");
    EQUAL(waitpid(-leader, &status, 0), -1, "a third member");
    return end();
}
