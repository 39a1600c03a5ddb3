/* workload: shm_file; kind: ipc; user: any; about: a file in /dev/shm, mapped by two processes that opened it by name */
#include "mappings.h"

#define SIZE (1 * MIB)
static char name[64];

static void other(void *unused)
{
    (void)unused;
    int fd = MUST(shm_open(name, O_RDWR, 0));
    char *memory = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    MUST(close(fd));
    atomic_ulong *turn = (atomic_ulong *)memory;
    while (running())
        if (*turn % 2 == 1)
            (*turn)++;
    verify_fill(memory + PAGE, SIZE - PAGE, 5, "shared memory in the child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    snprintf(name, sizeof name, "/workload-%d-%d", getpid(), getuid());
    shm_unlink(name);
    int fd = MUST(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0640));
    MUST(ftruncate(fd, SIZE));
    char *memory = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    fill(memory + PAGE, SIZE - PAGE, 5);
    atomic_ulong *turn = (atomic_ulong *)memory;
    *turn = 1;
    pid_t pid = child(other, NULL);
    while (*turn == 1)
        sched_yield();
    char *target = descriptor_target(fd);
    ready();
    while (running())
        if (*turn % 2 == 0)
            (*turn)++;
    unsigned long before = *turn;
    for (int i = 0; i < 2000 && *turn < before + 6; i++) {
        if (*turn % 2 == 0)
            (*turn)++;
        sleep_seconds(0.001);
    }
    CHECK(*turn >= before + 6, "the processes do not share the file any more");
    verify_fill(memory + PAGE, SIZE - PAGE, 5, "shared memory");
    char *now = descriptor_target(fd);
    verify_text(now, target, "name");
    struct stat by_name, by_fd;
    char *path = formatted("/dev/shm%s", name);
    EXPECT(fstat(fd, &by_fd));
    EQUAL(stat(path, &by_name), 0, "stat of the file by name");
    EQUAL(by_name.st_ino, by_fd.st_ino, "inode by name and by descriptor");
    EQUAL(by_fd.st_size, SIZE, "size");
    EQUAL(by_fd.st_mode, S_IFREG | 0640, "mode");
    EQUAL(by_fd.st_uid, getuid(), "owner");
    EQUAL(by_fd.st_nlink, 1, "links");
    stop_and_collect(pid);
    shm_unlink(name);
    return end();
}
