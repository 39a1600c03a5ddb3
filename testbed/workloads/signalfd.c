/* workload: signalfd; kind: signal; user: any; about: signalfds with masks, and signals that wait to be read from them */
#include "workload.h"
#include <sys/signalfd.h>

int main(int argc, char **argv)
{
    begin(argc, argv);
    sigset_t both, one;
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGRTMIN + 3);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR2);
    MUST(sigprocmask(SIG_BLOCK, &both, NULL));
    MUST(sigprocmask(SIG_BLOCK, &one, NULL));
    int first = MUST(signalfd(-1, &both, SFD_NONBLOCK | SFD_CLOEXEC)), second = MUST(signalfd(-1, &one, SFD_NONBLOCK));
    MUST(kill(getpid(), SIGUSR1));
    for (int i = 0; i < 3; i++) {
        union sigval value = {.sival_int = 100 + i};
        MUST(sigqueue(getpid(), SIGRTMIN + 3, value));
    }
    char *path = formatted("/proc/self/fdinfo/%d", first), *mask = field(path, "sigmask"), *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    char *mask_now = field(path, "sigmask");
    verify_text(mask_now, mask, "mask");
    struct signalfd_siginfo info;
    EQUAL(read(second, &info, sizeof info), -1, "read without a signal");
    EQUAL(read(first, &info, sizeof info), sizeof info, "read");
    EQUAL(info.ssi_signo, SIGUSR1, "signal");
    EQUAL(info.ssi_pid, getpid(), "sender");
    for (int i = 0; i < 3; i++) {
        EQUAL(read(first, &info, sizeof info), sizeof info, "read");
        EQUAL(info.ssi_signo, SIGRTMIN + 3, "signal");
        EQUAL(info.ssi_int, 100 + i, "value");
        EQUAL(info.ssi_code, SI_QUEUE, "code");
    }
    EQUAL(read(first, &info, sizeof info), -1, "a signal too many");
    EXPECT(kill(getpid(), SIGUSR2));
    EQUAL(read(second, &info, sizeof info), sizeof info, "read of a signal sent after");
    return end();
}
