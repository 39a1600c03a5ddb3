/* workload: blocked_wait; kind: blocked; user: any; about: wait4, waitid, joining a thread, reading a pidfd by poll */
#include "blocked.h"

static pid_t pids[3];
static int handle;

static void worker(void *unused)
{
    (void)unused;
    while (running())
        ;
}
static long do_wait4(void)
{
    int status = -1;
    pid_t pid = wait4(pids[0], &status, 0, NULL);
    EQUAL(status, 0, "status of wait4");
    return pid == pids[0] ? 0 : -1;
}
static long do_waitid(void)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    long result = waitid(P_PID, (id_t)pids[1], &info, WEXITED);
    EQUAL(info.si_pid, pids[1], "si_pid of waitid");
    return result;
}
static long do_pidfd(void)
{
    struct pollfd set = {handle, POLLIN, 0};
    return poll(&set, 1, -1);
}
static void wake(void)
{
    for (int i = 0; i < 3; i++)
        EXPECT(kill(pids[i], SIGTERM));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < 3; i++)
        pids[i] = child(worker, NULL);
    handle = (int)MUST(syscall(SYS_pidfd_open, pids[2], 0));
    struct blocked list[] = {{.name = "wait4", .call = do_wait4},
                             {.name = "waitid", .call = do_waitid},
                             {.name = "poll of a pidfd", .call = do_pidfd, .expected = 1}};
    BLOCKED_ALL(list, wake);
    collect(pids[2]);
    return end();
}
