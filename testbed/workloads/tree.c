/* workload: tree; kind: task; user: any; about: a tree of processes, three levels, each knows its parent and children */
#include "workload.h"

#define CHILDREN 3
#define GRANDCHILDREN 2

static struct shared {
    atomic_int up;
    atomic_ulong beats[16];
} *shared;

static void leaf(void *argument)
{
    int number = (int)(intptr_t)argument;
    pid_t pid = getpid(), parent = getppid(), group = getpgrp(), session = getsid(0);
    shared->up++;
    while (running()) {
        EQUAL(getppid(), parent, "parent of a leaf");
        shared->beats[number]++;
    }
    EQUAL(getpid(), pid, "id of a leaf");
    EQUAL(getpgrp(), group, "process group of a leaf");
    EQUAL(getsid(0), session, "session of a leaf");
    _exit(failures ? 1 : 50 + number);
}

/* The ids that the kernel tells as children of the calling thread. */
static void verify_children(const pid_t *pids, int count, const char *what)
{
    char *path = formatted("/proc/self/task/%d/children", gettid()), *actual = contents(path);
    char *expected = strdup("");
    for (int i = 0; i < count; i++) {
        char *more = formatted("%s%d ", expected, pids[i]);
        free(expected);
        expected = more;
    }
    verify_text(actual, expected, what);
    free(path), free(actual), free(expected);
}

static void expect_code(pid_t pid, int code)
{
    int status = 0;
    EXPECT(kill(pid, SIGTERM));
    EQUAL(waitpid(pid, &status, 0), pid, "waitpid");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code, "status of %d: 0x%x, not exit %d", pid, status, code);
}

static void branch(void *argument)
{
    int number = (int)(intptr_t)argument;
    pid_t parent = getppid(), pids[GRANDCHILDREN];
    for (int i = 0; i < GRANDCHILDREN; i++)
        pids[i] = child(leaf, (void *)(intptr_t)(number * GRANDCHILDREN + i));
    shared->up++;
    while (running())
        EQUAL(getppid(), parent, "parent of a branch");
    verify_children(pids, GRANDCHILDREN, "children of a branch");
    for (int i = 0; i < GRANDCHILDREN; i++)
        expect_code(pids[i], 50 + number * GRANDCHILDREN + i);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pids[CHILDREN];
    for (int i = 0; i < CHILDREN; i++)
        pids[i] = child(branch, (void *)(intptr_t)i);
    while (shared->up < CHILDREN * (GRANDCHILDREN + 1))
        sched_yield();
    ready();
    while (running())
        ;
    verify_children(pids, CHILDREN, "children of the root");
    unsigned long before[CHILDREN * GRANDCHILDREN];
    for (int i = 0; i < CHILDREN * GRANDCHILDREN; i++)
        before[i] = shared->beats[i];
    sleep_seconds(0.2);
    for (int i = 0; i < CHILDREN * GRANDCHILDREN; i++)
        CHECK(shared->beats[i] > before[i], "leaf %d does not work", i);
    for (int i = 0; i < CHILDREN; i++)
        stop_and_collect(pids[i]);
    EQUAL(waitpid(-1, NULL, WNOHANG), -1, "a child too many");
    return end();
}
