/* workload: parent_death_signal; kind: task; user: any; about: the signal that a child gets when its parent ends */
#include "workload.h"

static atomic_int *step;

static void grandchild(void *unused)
{
    (void)unused;
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    MUST(prctl(PR_SET_PDEATHSIG, SIGRTMIN + 2));
    *step = 1;
    while (running())
        ;
    int now = 0;
    EXPECT(prctl(PR_GET_PDEATHSIG, &now));
    EQUAL(now, SIGRTMIN + 2, "parent-death signal");
    struct timespec time = {5, 0}, none = {0, 0};
    EQUAL(sigtimedwait(&blocked, NULL, &none), -1, "the signal before the parent has ended");
    *step = 2;
    EQUAL(sigtimedwait(&blocked, NULL, &time), SIGRTMIN + 2, "the signal after the parent has ended");
    *step = failures ? 4 : 3;
}

static void parent(void *argument)
{
    *(pid_t *)argument = child(grandchild, NULL);
    while (running())
        ;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t *id = (pid_t *)(step + 16), pid = child(parent, id);
    while (*step < 1)
        sched_yield();
    ready();
    while (running())
        ;
    EXPECT(kill(*id, SIGTERM));
    for (int i = 0; i < 5000 && *step < 2; i++)
        sleep_seconds(0.001);
    stop_and_collect(pid);
    collect(*id);
    EQUAL(*step, 3, "step of the grandchild");
    return end();
}
