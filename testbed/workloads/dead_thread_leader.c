/* workload: dead_thread_leader; kind: task; user: any; about: a process whose first thread has ended while others work */
#include "workload.h"

static pid_t process;

static void *run(void *argument)
{
    pid_t self = gettid();
    char *path = formatted("/proc/self/task/%d/stat", process);
    if (argument) /* the second thread only waits */
        for (;;)
            pause();
    for (;;) {
        char *text = contents(path), *state = strrchr(text, ')');
        bool dead = state && state[2] == 'Z';
        free(text);
        if (dead)
            break;
        sleep_seconds(0.001);
    }
    char *name = contents("/proc/self/comm");
    ready();
    while (running()) {
        EQUAL(getpid(), process, "getpid");
        EQUAL(gettid(), self, "gettid");
    }
    char *text = contents(path), *state = strrchr(text, ')');
    CHECK(state && state[2] == 'Z', "the first thread: %s", text);
    char *threads = field("/proc/self/status", "Threads");
    verify_text(threads, "3", "threads");
    char *now = contents("/proc/self/comm");
    verify_text(now, name, "name");
    _exit(end());
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    process = getpid();
    thread(run, (void *)1);
    thread(run, NULL);
    /* The kernel's exit of this thread alone: pthread_exit of the first thread would do the same and free things. */
    syscall(SYS_exit, 0);
    return 1;
}
