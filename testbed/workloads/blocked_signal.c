/* workload: blocked_signal; kind: blocked; user: any; about: pause, sigsuspend, sigwaitinfo, sigtimedwait */
#include "blocked.h"

static atomic_int handled[65];
static void on_signal(int signal) { handled[signal]++; }

static sigset_t only(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}
static sigset_t all_but(int signal)
{
    sigset_t set;
    sigfillset(&set);
    sigdelset(&set, signal);
    return set;
}
static long do_pause(void)
{
    sigset_t mask = all_but(SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return pause();
}
static long do_suspend(void)
{
    sigset_t mask = all_but(SIGUSR2), before, now;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    long result = sigsuspend(&mask);
    int error = errno;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    CHECK(memcmp(&before, &now, 8) == 0, "mask after sigsuspend: %lx, was %lx", *(unsigned long *)&now, *(unsigned long *)&before);
    errno = error;
    return result;
}
static long do_wait(void)
{
    sigset_t set = only(SIGRTMIN + 1);
    siginfo_t info;
    long result = sigwaitinfo(&set, &info);
    EQUAL(info.si_value.sival_int, 55, "value of a signal waited for");
    return result;
}
static long do_timed(void)
{
    sigset_t set = only(SIGRTMIN + 2);
    struct timespec time = {2, 0};
    return sigtimedwait(&set, NULL, &time);
}

static struct blocked list[] = {
    {.name = "pause", .call = do_pause, .expected = -1, .expected_errno = EINTR},
    {.name = "sigsuspend", .call = do_suspend, .expected = -1, .expected_errno = EINTR},
    {.name = "sigwaitinfo", .call = do_wait},
    {.name = "sigtimedwait", .call = do_timed, .timeout = 2, .expected = -1, .expected_errno = EAGAIN}};

static void wake(void)
{
    EQUAL(handled[SIGUSR1] + handled[SIGUSR2], 0, "signals handled before any was sent");
    pthread_kill(list[0].thread, SIGUSR1);
    pthread_kill(list[1].thread, SIGUSR2);
    union sigval value = {.sival_int = 55};
    pthread_sigqueue(list[2].thread, SIGRTMIN + 1, value);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t all;
    sigfillset(&all);
    MUST(sigprocmask(SIG_SETMASK, &all, NULL));
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    MUST(sigaction(SIGUSR1, &action, NULL));
    MUST(sigaction(SIGUSR2, &action, NULL));
    list[2].expected = SIGRTMIN + 1;
    BLOCKED_ALL(list, wake);
    EQUAL(handled[SIGUSR1], 1, "SIGUSR1 handled");
    EQUAL(handled[SIGUSR2], 1, "SIGUSR2 handled");
    return end();
}
