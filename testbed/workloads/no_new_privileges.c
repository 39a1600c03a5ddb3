/* workload: no_new_privileges; kind: rights; user: any; about: no_new_privs of a process and of one thread, dumpable, keep-caps */
#include "workload.h"

static atomic_int up, stop;

static void *marked(void *unused)
{
    (void)unused;
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    up = 1;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1, "no_new_privs of a thread");
    return NULL;
}

static void whole(void *argument)
{
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(prctl(PR_SET_DUMPABLE, 0));
    *(atomic_int *)argument = 1;
    while (running())
        ;
    EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1, "no_new_privs of a process");
    EQUAL(prctl(PR_GET_DUMPABLE), 0, "dumpable of a child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    atomic_int *child_up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    MUST(prctl(PR_SET_KEEPCAPS, 1));
    int dumpable = prctl(PR_GET_DUMPABLE);
    pid_t pid = child(whole, child_up);
    pthread_t other = thread(marked, NULL);
    while (!up || !*child_up)
        sched_yield();
    ready();
    while (running())
        ;
    EQUAL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0, "no_new_privs of the first thread");
    EQUAL(prctl(PR_GET_DUMPABLE), dumpable, "dumpable");
    EQUAL(prctl(PR_GET_KEEPCAPS), 1, "keep-caps");
    stop = 1;
    pthread_join(other, NULL);
    stop_and_collect(pid);
    return end();
}
