/* workload: sessions; kind: task; user: any; about: sessions and process groups with living leaders */
#include "workload.h"

static struct shared {
    atomic_int step;
    struct { pid_t pid, group, session; } of[8];
} *shared;

static void record(int slot)
{
    shared->of[slot].pid = getpid();
    shared->of[slot].group = getpgrp();
    shared->of[slot].session = getsid(0);
    shared->step++;
    while (running())
        ;
    EQUAL(getpid(), shared->of[slot].pid, "pid");
    EQUAL(getpgrp(), shared->of[slot].group, "process group");
    EQUAL(getsid(0), shared->of[slot].session, "session");
}

static void member(void *argument)
{
    int slot = (int)(intptr_t)argument;
    while (shared->step < slot) /* the leader has joined it to its group before */
        sched_yield();
    record(slot);
}

static void session_leader(void *argument)
{
    int slot = (int)(intptr_t)argument;
    MUST(setsid());
    pid_t first = child(member, (void *)(intptr_t)(slot + 1)); /* a group of its own, as a shell's job */
    MUST(setpgid(first, first));
    pid_t second = child(member, (void *)(intptr_t)(slot + 2));
    MUST(setpgid(second, first));
    record(slot);
    stop_and_collect(first);
    stop_and_collect(second);
}

static void group_leader(void *argument)
{
    MUST(setpgid(0, 0));
    record((int)(intptr_t)argument);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t one = child(session_leader, (void *)0);
    while (shared->step < 3)
        sched_yield();
    pid_t two = child(session_leader, (void *)3);
    while (shared->step < 6)
        sched_yield();
    pid_t three = child(group_leader, (void *)6);
    while (shared->step < 7)
        sched_yield();
    pid_t group = getpgrp(), session = getsid(0);
    EQUAL(shared->of[0].session, one, "the first session");
    EQUAL(shared->of[1].group, shared->of[1].pid, "a job's group");
    EQUAL(shared->of[2].group, shared->of[1].pid, "a job's second member");
    ready();
    while (running())
        ;
    EQUAL(getpgrp(), group, "group of the root");
    EQUAL(getsid(0), session, "session of the root");
    for (int i = 0; i < 7; i++) {
        EQUAL(getpgid(shared->of[i].pid), shared->of[i].group, "process group seen by the root");
        EQUAL(getsid(shared->of[i].pid), shared->of[i].session, "session seen by the root");
    }
    /* A signal to a group reaches exactly its members. */
    EXPECT(kill(-shared->of[1].pid, 0));
    stop_and_collect(one);
    EQUAL(kill(-shared->of[1].pid, 0), -1, "a signal to a group that has ended");
    stop_and_collect(two);
    stop_and_collect(three);
    return end();
}
