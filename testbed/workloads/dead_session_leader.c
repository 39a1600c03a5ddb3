/* workload: dead_session_leader; kind: task; user: any; about: processes of a session whose leader has ended */
#include "workload.h"

static struct shared {
    atomic_int step;
    pid_t member[2], session;
} *shared;

static void member(void *argument)
{
    int number = (int)(intptr_t)argument;
    while (shared->step < 1 + number)
        sched_yield();
    while (getppid() == shared->session) /* until the leader has ended */
        sched_yield();
    if (number == 1)
        MUST(setpgid(0, 0));
    pid_t group = getpgrp();
    shared->step++;
    while (running())
        ;
    EQUAL(getsid(0), shared->session, "session whose leader has ended");
    EQUAL(getpgrp(), group, "process group");
}

static void leader(void *unused)
{
    (void)unused;
    shared->session = MUST(setsid());
    shared->member[0] = child(member, (void *)0);
    shared->member[1] = child(member, (void *)1);
    shared->step = 1;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1)); /* the members stay in this tree */
    shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    collect(child(leader, NULL));
    while (shared->step < 3)
        sched_yield();
    EQUAL(getsid(shared->member[0]), shared->session, "session");
    ready();
    while (running())
        ;
    EQUAL(kill(shared->session, 0), -1, "a signal to the leader that has ended");
    EQUAL(getsid(shared->member[0]), shared->session, "session seen by the root");
    EQUAL(getpgid(shared->member[0]), shared->session, "group seen by the root");
    EQUAL(getpgid(shared->member[1]), shared->member[1], "group of the second member");
    stop_and_collect(shared->member[0]);
    stop_and_collect(shared->member[1]);
    return end();
}
