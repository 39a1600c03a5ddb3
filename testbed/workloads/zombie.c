/* workload: zombie; kind: task; user: any; about: ended children that nobody has waited for: status, times, order */
#include "workload.h"

static void burn_and_exit(void *unused)
{
    (void)unused;
    while (clock() < CLOCKS_PER_SEC / 20)
        ;
    _exit(42);
}

static void leave_by_signal(void *argument)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal((int)(intptr_t)argument, SIG_DFL);
    kill(getpid(), (int)(intptr_t)argument);
    pause();
}

static void with_zombie_threads(void *unused)
{
    (void)unused;
    MUST(prctl(PR_SET_NAME, "odd ) name"));
    MUST(setpgid(0, 0));
    _exit(255);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t pids[4];
    int codes[] = {CLD_EXITED, CLD_KILLED, CLD_KILLED, CLD_EXITED}, statuses[] = {42, SIGKILL, SIGUSR1, 255};
    pids[0] = child(burn_and_exit, NULL);
    pids[1] = child(leave_by_signal, (void *)SIGKILL);
    pids[2] = child(leave_by_signal, (void *)SIGUSR1);
    pids[3] = child(with_zombie_threads, NULL);
    siginfo_t info;
    for (int i = 0; i < 4; i++)
        MUST(waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOWAIT));
    ready();
    while (running())
        ;
    for (int i = 0; i < 4; i++) {
        char *path = formatted("/proc/%d/stat", pids[i]), *text = contents(path), *state = strrchr(text, ')');
        CHECK(state && state[2] == 'Z', "child %d is not a zombie: %s", pids[i], text);
        free(path), free(text);
    }
    char *path = formatted("/proc/%d/comm", pids[3]), *name = contents(path);
    verify_text(name, "odd ) name\n", "name of a zombie");
    EQUAL(getpgid(pids[3]), pids[3], "group of a zombie");
    for (int i = 0; i < 4; i++) {
        struct rusage usage;
        memset(&info, 0, sizeof info);
        EXPECT(waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT));
        EQUAL(info.si_pid, pids[i], "si_pid");
        EQUAL(info.si_code, codes[i], "si_code");
        EQUAL(info.si_status, statuses[i], "si_status");
        EQUAL(info.si_uid, getuid(), "si_uid");
        int status;
        EQUAL(wait4(pids[i], &status, WNOHANG, &usage), pids[i], "wait4");
        EQUAL(status, codes[i] == CLD_EXITED ? statuses[i] << 8 : statuses[i], "status");
    }
    EQUAL(waitpid(-1, NULL, WNOHANG), -1, "a child too many");
    return end();
}
