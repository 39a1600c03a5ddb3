/* workload: unopened_memory; kind: ipc; user: any; about: POSIX shared memory and a semaphore that nobody has open while the process moves, one made by a child that has ended; opened by name again */
#include "workload.h"
#include <semaphore.h>

#define SIZE (300 * KIB)
static char name[64], others[64], semaphore[64];

static void make(const char *which, unsigned seed)
{
    char bytes[SIZE];
    int fd = MUST(shm_open(which, O_RDWR | O_CREAT | O_EXCL, 0640));
    fill(bytes, sizeof bytes, seed);
    /* A hole before it. */
    MUST(pwrite(fd, bytes, sizeof bytes, MIB));
    MUST(close(fd));
}

static void other(void *unused)
{
    (void)unused;
    make(others, 6);
}

static void check(const char *which, unsigned seed)
{
    char bytes[SIZE], now[SIZE];
    int fd = shm_open(which, O_RDWR, 0);
    CHECK(fd >= 0, "shm_open of %s: %s", which, strerror(errno));
    if (fd < 0)
        return;
    struct stat data;
    EXPECT(fstat(fd, &data));
    EQUAL(data.st_size, MIB + SIZE, "size");
    EQUAL(data.st_mode, S_IFREG | 0640, "mode");
    EQUAL(data.st_uid, getuid(), "owner");
    CHECK(data.st_blocks * 512 < MIB, "the hole is filled");
    fill(bytes, sizeof bytes, seed);
    EQUAL(pread(fd, now, sizeof now, MIB), sizeof now, "pread");
    CHECK(memcmp(now, bytes, sizeof now) == 0, "contents differ");
    EXPECT(close(fd));
    EQUAL(shm_unlink(which), 0, "shm_unlink");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    snprintf(name, sizeof name, "/workload-%d-%d", getpid(), getuid());
    snprintf(others, sizeof others, "%s-child", name);
    snprintf(semaphore, sizeof semaphore, "%s-semaphore", name);
    shm_unlink(name);
    shm_unlink(others);
    sem_unlink(semaphore);
    make(name, 5);
    pid_t pid = child(other, NULL);
    collect(pid);
    sem_t *made = sem_open(semaphore, O_CREAT | O_EXCL, 0600, 7);
    MUST(made == SEM_FAILED ? -1 : 0);
    MUST(sem_close(made));
    ready();
    while (running())
        sleep_seconds(0.01);
    check(name, 5);
    check(others, 6);
    sem_t *now = sem_open(semaphore, 0);
    CHECK(now != SEM_FAILED, "sem_open: %s", strerror(errno));
    int value = 0;
    if (now != SEM_FAILED) {
        EXPECT(sem_getvalue(now, &value));
        EQUAL(value, 7, "value of the semaphore");
        EQUAL(sem_unlink(semaphore), 0, "sem_unlink");
    }
    return end();
}
