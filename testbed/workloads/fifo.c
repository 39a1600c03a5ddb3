/* workload: fifo; kind: file; user: any; about: FIFOs with a name on disk and unread bytes, ends in two processes, one opened for both */
#include "workload.h"

static char *path[2];
static atomic_int *step;

static void writer(void *unused)
{
    (void)unused;
    int fd = MUST(open(path[0], O_WRONLY));
    EQUAL(write(fd, "before", 6), 6, "write");
    *step = 1;
    while (running())
        ;
    EQUAL(write(fd, " after", 6), 6, "write");
    close(fd);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    path[0] = scratch("fifo");
    path[1] = scratch("both");
    MUST(mkfifo(path[0], 0640));
    MUST(mkfifo(path[1], 0600));
    pid_t pid = child(writer, NULL);
    int reader = MUST(open(path[0], O_RDONLY)), both = MUST(open(path[1], O_RDWR | O_NONBLOCK | O_CLOEXEC));
    while (*step < 1)
        sched_yield();
    EQUAL(write(both, "own words", 9), 9, "write");
    MUST(fcntl(both, F_SETPIPE_SZ, 1 << 17));
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    EQUAL(fcntl(both, F_GETPIPE_SZ), 1 << 17, "size");
    char text[64] = "";
    EQUAL(read(both, text, 63), 9, "read");
    verify_text(text, "own words", "contents");
    struct stat by_fd, by_name;
    EXPECT(fstat(reader, &by_fd));
    EXPECT(stat(path[0], &by_name));
    EQUAL(by_fd.st_ino, by_name.st_ino, "inode by name and by descriptor");
    stop_and_collect(pid);
    EXPECT(fcntl(reader, F_SETFL, O_NONBLOCK));
    memset(text, 0, sizeof text);
    EQUAL(read(reader, text, 63), 12, "read");
    verify_text(text, "before after", "contents");
    EQUAL(read(reader, text, 63), 0, "read without writer");
    unlink(path[0]);
    unlink(path[1]);
    return end();
}
