/* workload: signal_continue; kind: signal; user: any; about: a child whose continuation is not waited for yet, and SIGCONT that comes while its process works */
#include "workload.h"

static volatile sig_atomic_t continued;

static void taken(int signal)
{
    (void)signal;
    continued++;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t one, now;
    sigemptyset(&one);
    sigaddset(&one, SIGTSTP);
    MUST(sigprocmask(SIG_BLOCK, &one, NULL));
    MUST(signal(SIGCONT, taken) == SIG_ERR ? -1 : 0);
    pid_t child = fork();
    MUST(child);
    if (child == 0) {
        for (;;)
            pause();
    }
    int status = 0;
    MUST(kill(child, SIGSTOP));
    MUST(waitpid(child, &status, WUNTRACED));
    MUST(kill(child, SIGCONT));
    sleep_seconds(0.05);
    ready();
    int sent = 0;
    while (running()) {
        sent++;
        MUST(kill(getpid(), SIGCONT));
    }
    EQUAL(continued, sent, "SIGCONT taken");
    MUST(kill(getpid(), SIGTSTP));
    sigpending(&now);
    CHECK(sigismember(&now, SIGTSTP), "SIGTSTP does not wait");
    EXPECT(kill(child, 0));
    EQUAL(waitpid(child, &status, WCONTINUED | WNOHANG), child, "the continued child");
    CHECK(WIFCONTINUED(status), "status %x, should be that of a continued child", status);
    EQUAL(waitpid(child, &status, WCONTINUED | WUNTRACED | WNOHANG), 0, "the child is told of twice");
    MUST(kill(child, SIGKILL));
    EQUAL(waitpid(child, &status, 0), child, "the child's end");
    return end();
}
