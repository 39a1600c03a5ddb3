/* workload: lease; kind: file; user: any; refusal: allowed; about: a read and a write lease on files */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *path[2] = {scratch("read"), scratch("write")};
    int fds[2];
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGIO);
    sigaddset(&blocked, SIGRTMIN + 4);
    MUST(sigprocmask(SIG_BLOCK, &blocked, NULL));
    for (int i = 0; i < 2; i++) {
        close(MUST(open(path[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
        fds[i] = MUST(open(path[i], i ? O_RDWR : O_RDONLY));
        MUST(fcntl(fds[i], F_SETSIG, SIGRTMIN + 4));
        MUST(fcntl(fds[i], F_SETLEASE, i ? F_WRLCK : F_RDLCK));
    }
    ready();
    while (running())
        ;
    EQUAL(fcntl(fds[0], F_GETLEASE), F_RDLCK, "read lease");
    EQUAL(fcntl(fds[1], F_GETLEASE), F_WRLCK, "write lease");
    EQUAL(fcntl(fds[1], F_GETSIG), SIGRTMIN + 4, "signal");
    EQUAL(open(path[1], O_RDONLY | O_NONBLOCK | O_CLOEXEC), -1, "opening a leased file");
    struct timespec second = {1, 0};
    siginfo_t info;
    EQUAL(sigtimedwait(&blocked, &info, &second), SIGRTMIN + 4, "signal of the lease");
    EQUAL(info.si_fd, fds[1], "descriptor of the signal");
    for (int i = 0; i < 2; i++) {
        EXPECT(fcntl(fds[i], F_SETLEASE, F_UNLCK));
        unlink(path[i]);
    }
    return end();
}
