/* workload: orphan; kind: task; user: any; about: an orphan adopted by a subreaper inside the tree, and one adopted after the move */
#include "workload.h"

static struct shared {
    atomic_int up;
    pid_t orphan, late_parent, late;
} *shared;

static void worker(void *unused)
{
    (void)unused;
    shared->up++;
    while (running())
        ;
    EQUAL(getppid(), *(pid_t *)(shared + 1), "parent of an orphan");
}

static void make_orphan(void *unused)
{
    (void)unused;
    shared->orphan = child(worker, NULL);
}

static void make_late_orphan(void *unused)
{
    (void)unused;
    shared->late = child(worker, NULL);
    while (running())
        ;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    *(pid_t *)(shared + 1) = getpid();
    collect(child(make_orphan, NULL));
    shared->late_parent = child(make_late_orphan, NULL);
    while (shared->up < 2)
        sched_yield();
    ready();
    while (running())
        ;
    int subreaper = 0;
    EXPECT(prctl(PR_GET_CHILD_SUBREAPER, &subreaper));
    EQUAL(subreaper, 1, "subreaper");
    stop_and_collect(shared->orphan);
    stop_and_collect(shared->late_parent); /* only now does its child become an orphan */
    stop_and_collect(shared->late);
    return end();
}
