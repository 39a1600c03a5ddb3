/* workload: heartbeat; kind: process; user: any; about: two processes whose numbered heartbeats tell on which host each beat was made */
#include "workload.h"
#include <sys/utsname.h>

#define MEMORY (16 * MIB)

static char *beats;

/* One line in one write: who, its number, the host it was made on, when. Nothing of it is open between two beats. */
static void beat(char who, unsigned long *number)
{
    struct utsname host;
    EXPECT(uname(&host));
    char line[200];
    int length = snprintf(line, sizeof line, "%c %lu %s %.6f\n", who, ++*number, host.nodename, real_time());
    int fd = EXPECT(open(beats, O_WRONLY | O_APPEND | O_CLOEXEC));
    EQUAL(write(fd, line, (size_t)length), length, "write of a heartbeat");
    close(fd);
}

#ifdef LOCKED
/* The first process has the one by an open description, the second the other for itself. */
static int hold(const char *name, int of_description)
{
    int fd = MUST(open(scratch(name), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    MUST(of_description ? flock(fd, LOCK_EX) : fcntl(fd, F_SETLK, &lock));
    return fd;
}
static void verify_held(pid_t pid)
{
    int fd = EXPECT(open(scratch("flock"), O_RDWR | O_CLOEXEC));
    EQUAL(flock(fd, LOCK_SH | LOCK_NB), -1, "flock of a locked file");
    fd = EXPECT(open(scratch("posix"), O_RDWR | O_CLOEXEC));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    EXPECT(fcntl(fd, F_GETLK, &lock));
    EQUAL(lock.l_type, F_WRLCK, "type of the other's lock");
    EQUAL(lock.l_pid, pid, "owner of the other's lock");
}
#endif

static void second(void *unused)
{
    (void)unused;
#ifdef LOCKED
    hold("posix", 0);
#endif
    unsigned long number = 0;
    while (running())
        beat('b', &number);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    beats = scratch("beats");
    close(MUST(open(beats, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)));
    uint8_t *memory = MUST(mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(memory, MEMORY, 66);
#ifdef LOCKED
    hold("flock", 1);
#endif
    pid_t pid = child(second, NULL);
    unsigned long number = 0;
    ready();
    while (running())
        beat('a', &number);
    verify_fill(memory, MEMORY, 66, "memory");
#ifdef LOCKED
    verify_held(pid);
#endif
    stop_and_collect(pid);
    return end();
}
