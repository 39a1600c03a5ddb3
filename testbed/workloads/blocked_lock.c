/* workload: blocked_lock; kind: blocked; user: any; about: waiting for flock, POSIX and open-file-description locks, and for a FIFO to be opened */
#include "blocked.h"

static char *path, *fifo;
static int owners[2], waiters[2];
static atomic_int *step;

static long do_flock(void) { return flock(waiters[0], LOCK_EX); }
static long do_ofd(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    return fcntl(waiters[1], F_OFD_SETLKW, &lock);
}
static long do_posix(void)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 5};
    return fcntl(fd, F_SETLKW, &lock);
}
static long do_open(void)
{
    int fd = open(fifo, O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? 0 : -1;
}
static void holder(void *unused)
{
    (void)unused;
    int fd = MUST(open(path, O_RDWR | O_CLOEXEC));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 5};
    MUST(fcntl(fd, F_SETLK, &lock));
    *step = 1;
    while (running())
        ;
}
static pid_t holder_id;
static void wake(void)
{
    EXPECT(flock(owners[0], LOCK_UN));
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    EXPECT(fcntl(owners[1], F_OFD_SETLK, &lock));
    stop_and_collect(holder_id);
    EXPECT(open(fifo, O_WRONLY | O_CLOEXEC | O_NONBLOCK));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    path = scratch("lock");
    fifo = scratch("fifo");
    MUST(mkfifo(fifo, 0600));
    for (int i = 0; i < 2; i++) {
        owners[i] = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        waiters[i] = MUST(open(path, O_RDWR | O_CLOEXEC));
    }
    MUST(flock(owners[0], LOCK_EX));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
    MUST(fcntl(owners[1], F_OFD_SETLK, &lock));
    holder_id = child(holder, NULL);
    while (!*step)
        sched_yield();
    struct blocked list[] = {{.name = "flock", .call = do_flock},
                             {.name = "F_OFD_SETLKW", .call = do_ofd},
                             {.name = "F_SETLKW", .call = do_posix},
                             {.name = "open of a FIFO", .call = do_open}};
    BLOCKED_ALL(list, wake);
    return end();
}
