/* workload: locks; kind: file; user: any; about: flock, POSIX and open-file-description locks, by ranges, shared and exclusive, of a parent and a child */
#include "workload.h"

static char *path[3];
static int fds[3], second[3];
static atomic_int *step;

static struct flock range(short type, off_t start, off_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return lock;
}

/* Who would stand in the way of a lock, by POSIX rules. */
static void verify_conflict(int fd, int command, off_t start, off_t length, short type, off_t at, off_t size, pid_t pid)
{
    struct flock lock = range(F_WRLCK, start, length);
    if (fcntl(fd, command, &lock)) {
        fail("F_GETLK: %s", strerror(errno));
        return;
    }
    CHECK(lock.l_type == type && (type == F_UNLCK || (lock.l_start == at && lock.l_len == size && lock.l_pid == pid)),
          "lock at %ld: type %d from %ld length %ld of %d, should be type %d from %ld length %ld of %d", (long)start, lock.l_type,
          (long)lock.l_start, (long)lock.l_len, lock.l_pid, type, (long)at, (long)size, pid);
}

static void other(void *unused)
{
    (void)unused;
    int own = MUST(open(path[1], O_RDWR | O_CLOEXEC));
    struct flock lock = range(F_WRLCK, 150, 50), read_lock = range(F_RDLCK, 0, 10);
    MUST(fcntl(own, F_SETLK, &lock));
    MUST(fcntl(own, F_SETLK, &read_lock));
    *step = 1;
    while (running())
        ;
    verify_conflict(own, F_GETLK, 100, 10, F_WRLCK, 100, 10, getppid());
    verify_conflict(own, F_GETLK, 200, 10, F_RDLCK, 200, 0, getppid());
    verify_conflict(own, F_GETLK, 110, 40, F_UNLCK, 0, 0, 0);
    int fresh = EXPECT(open(path[0], O_RDWR | O_CLOEXEC));
    EQUAL(flock(fresh, LOCK_EX | LOCK_NB), -1, "flock of a locked file");
    /* The inherited description holds the lock: locking it again is no conflict. */
    EQUAL(flock(fds[0], LOCK_EX | LOCK_NB), 0, "flock through an inherited descriptor");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < 3; i++) {
        path[i] = scratch(i == 0 ? "flock" : i == 1 ? "posix" : "ofd");
        fds[i] = MUST(open(path[i], O_RDWR | O_CREAT | O_TRUNC, 0600));
        second[i] = MUST(open(path[i], O_RDWR | O_CLOEXEC));
    }
    MUST(flock(fds[0], LOCK_EX));
    struct flock locks[] = {range(F_WRLCK, 100, 10), range(F_RDLCK, 200, 0), range(F_RDLCK, 0, 10)};
    for (int i = 0; i < 3; i++)
        MUST(fcntl(fds[1], F_SETLK, &locks[i]));
    struct flock of_description[] = {range(F_WRLCK, 5, 7), range(F_RDLCK, 50, 10)};
    for (int i = 0; i < 2; i++)
        MUST(fcntl(fds[2], F_OFD_SETLK, &of_description[i]));
    struct flock shared = range(F_RDLCK, 55, 10);
    MUST(fcntl(second[2], F_OFD_SETLK, &shared));
    pid_t pid = child(other, NULL);
    while (!*step)
        sched_yield();
    ready();
    while (running())
        ;
    EQUAL(flock(second[0], LOCK_SH | LOCK_NB), -1, "flock of a locked file");
    EQUAL(errno, EWOULDBLOCK, "errno of flock");
    verify_conflict(fds[1], F_GETLK, 160, 1, F_WRLCK, 150, 50, pid);
    verify_conflict(fds[1], F_GETLK, 3, 1, F_RDLCK, 0, 10, pid);
    verify_conflict(fds[1], F_GETLK, 20, 50, F_UNLCK, 0, 0, 0);
    verify_conflict(second[2], F_OFD_GETLK, 0, 20, F_WRLCK, 5, 7, -1);
    verify_conflict(second[2], F_OFD_GETLK, 50, 2, F_RDLCK, 50, 10, -1);
    verify_conflict(fds[2], F_OFD_GETLK, 60, 5, F_RDLCK, 55, 10, -1);
    verify_conflict(fds[2], F_OFD_GETLK, 100, 5, F_UNLCK, 0, 0, 0);
    stop_and_collect(pid);
    verify_conflict(fds[1], F_GETLK, 160, 1, F_UNLCK, 0, 0, 0);
    EQUAL(flock(fds[0], LOCK_UN), 0, "unlocking");
    EQUAL(flock(second[0], LOCK_EX | LOCK_NB), 0, "flock of an unlocked file");
    for (int i = 0; i < 3; i++)
        unlink(path[i]);
    return end();
}
