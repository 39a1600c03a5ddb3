/* workload: stopped; kind: task; user: any; about: children stopped by job control, one of them not yet waited for */
#include "workload.h"

static atomic_ulong *beats;

static void beat(void *argument)
{
    int number = (int)(intptr_t)argument;
    while (running())
        beats[number]++;
}

static void verify_state(pid_t pid, char expected)
{
    char *path = formatted("/proc/%d/stat", pid), *text = contents(path), *state = strrchr(text, ')');
    CHECK(state && state[2] == expected, "state of a child: %c, was %c", state ? state[2] : '?', expected);
    free(path), free(text);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    beats = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    int signals[] = {SIGSTOP, SIGTSTP, SIGSTOP};
    pid_t pids[3];
    int status;
    for (int i = 0; i < 3; i++) {
        pids[i] = child(beat, (void *)(intptr_t)i);
        while (beats[i] < 3)
            sched_yield();
        if (i == 1) /* SIGTSTP stops nobody in an orphaned group: its parent is in another group of the session */
            MUST(setpgid(pids[i], pids[i]));
        MUST(kill(pids[i], signals[i]));
        siginfo_t info;
        MUST(waitid(P_PID, (id_t)pids[i], &info, WSTOPPED | WNOWAIT));
        if (i < 2)
            MUST(waitpid(pids[i], &status, WUNTRACED));
    }
    unsigned long before[] = {beats[0], beats[1], beats[2]};
    ready();
    while (running())
        for (int i = 0; i < 3; i++)
            EQUAL(beats[i], before[i], "a stopped child ran");
    EQUAL(waitpid(pids[0], &status, WUNTRACED | WNOHANG), 0, "a stop that was reported before");
    EQUAL(waitpid(pids[1], &status, WUNTRACED | WNOHANG), 0, "a stop that was reported before");
    EQUAL(waitpid(pids[2], &status, WUNTRACED | WNOHANG), pids[2], "a stop that was not reported yet");
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "status 0x%x", status);
    for (int i = 0; i < 3; i++) {
        verify_state(pids[i], 'T');
        EXPECT(kill(pids[i], SIGCONT));
        EQUAL(waitpid(pids[i], &status, WCONTINUED), pids[i], "waitpid for going on");
        CHECK(WIFCONTINUED(status), "status 0x%x", status);
        for (int k = 0; k < 2000 && beats[i] == before[i]; k++)
            sleep_seconds(0.001);
        CHECK(beats[i] > before[i], "child %d does not go on", i);
        stop_and_collect(pids[i]);
    }
    return end();
}
