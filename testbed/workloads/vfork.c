/* workload: vfork; kind: task; user: any; about: a process that waits in vfork for a child that shares its memory */
#include "workload.h"

static struct shared {
    atomic_int up;
    atomic_ulong beats;
    pid_t borrower, middle;
} *shared;
static volatile uint64_t written_by_borrower;

static void middle(void *unused)
{
    (void)unused;
    uint64_t local = 17;
    shared->middle = getpid();
    pid_t pid = vfork();
    if (pid == 0) {
        shared->borrower = getpid();
        shared->up = 1;
        while (running())
            shared->beats++;
        written_by_borrower = 4711;
        if (getppid() != shared->middle)
            _exit(9);
        _exit(7);
    }
    int status = 0;
    EQUAL(written_by_borrower, 4711, "memory shared with a vforked child");
    EQUAL(local, 17, "local variable across vfork");
    EQUAL(pid, shared->borrower, "result of vfork");
    EQUAL(waitpid(pid, &status, 0), pid, "waitpid");
    EQUAL(status, 7 << 8, "status of a vforked child");
    shared->up = 2;
    while (running())
        ;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    shared = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(middle, NULL);
    while (shared->up < 1)
        sched_yield();
    ready();
    while (running())
        ;
    unsigned long before = shared->beats;
    sleep_seconds(0.2);
    CHECK(shared->beats > before, "the vforked child does not work");
    EQUAL(shared->up, 1, "the parent came back from vfork early");
    EXPECT(kill(shared->borrower, SIGTERM));
    for (int i = 0; i < 5000 && shared->up < 2; i++)
        sleep_seconds(0.001);
    EQUAL(shared->up, 2, "the parent did not come back from vfork");
    stop_and_collect(pid);
    return end();
}
