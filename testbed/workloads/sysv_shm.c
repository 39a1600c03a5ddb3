/* workload: sysv_shm; kind: ipc; user: any; about: System V shared memory of two processes: with a key, private, removed, read-only */
#include "mappings.h"
#include <sys/ipc.h>
#include <sys/shm.h>

#define SIZE (300 * KIB)
static int ids[3];
static char *memory[3];
static struct area_list areas;

static void other(void *unused)
{
    (void)unused;
    char *again = MUST(shmat(ids[0], NULL, SHM_RDONLY));
    atomic_ulong *turn = (atomic_ulong *)memory[0];
    *turn = 1;
    while (running())
        if (*turn % 2 == 0)
            (*turn)++;
    CHECK(memcmp(again, memory[0], PAGE) == 0, "the same segment, attached again, differs");
    verify_fill(again + PAGE, SIZE - PAGE, 10, "the same segment, attached again");
    verify_fill(memory[2] + PAGE, SIZE - PAGE, 12, "removed segment in the child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    key_t key = 0x60d00000 + getpid() * 4096 + (int)getuid();
    ids[0] = MUST(shmget(key, SIZE, IPC_CREAT | IPC_EXCL | 0640));
    ids[1] = MUST(shmget(IPC_PRIVATE, SIZE, 0600));
    ids[2] = MUST(shmget(IPC_PRIVATE, SIZE, 0600));
    for (uint64_t i = 0; i < 3; i++) {
        memory[i] = MUST(shmat(ids[i], NULL, 0));
        fill(memory[i] + PAGE, SIZE - PAGE, 10 + i);
    }
    pid_t pid = child(other, NULL);
    atomic_ulong *turn = (atomic_ulong *)memory[0];
    while (*turn == 0)
        sched_yield();
    MUST(shmctl(ids[2], IPC_RMID, NULL));
    struct shmid_ds before[3];
    for (int i = 0; i < 3; i++)
        MUST(shmctl(ids[i], IPC_STAT, &before[i]));
    read_areas(&areas, (unsigned long)memory[1], (unsigned long)memory[1] + SIZE);
    ready();
    while (running())
        if (*turn % 2 == 1)
            (*turn)++;
    unsigned long last = *turn;
    for (int i = 0; i < 2000 && *turn < last + 6; i++) {
        if (*turn % 2 == 1)
            (*turn)++;
        sleep_seconds(0.001);
    }
    CHECK(*turn >= last + 6, "the processes do not share the segment any more");
    verify_areas(&areas, (unsigned long)memory[1], (unsigned long)memory[1] + SIZE);
    for (int i = 0; i < 3; i++) {
        struct shmid_ds now;
        if (shmctl(ids[i], IPC_STAT, &now)) {
            fail("segment %d: %s", i, strerror(errno));
            continue;
        }
        EQUAL(now.shm_segsz, before[i].shm_segsz, "size");
        EQUAL(now.shm_perm.mode, before[i].shm_perm.mode, "mode");
        EQUAL(now.shm_perm.__key, before[i].shm_perm.__key, "key");
        EQUAL(now.shm_perm.uid, before[i].shm_perm.uid, "owner");
        EQUAL(now.shm_perm.cuid, before[i].shm_perm.cuid, "creator");
        EQUAL(now.shm_nattch, before[i].shm_nattch, "times attached");
        EQUAL(now.shm_cpid, before[i].shm_cpid, "id of the creating process");
        verify_fill(memory[i] + PAGE, SIZE - PAGE, 10 + (uint64_t)i, "segment");
    }
    EQUAL(shmget(key, SIZE, 0), ids[0], "segment found by its key");
    stop_and_collect(pid);
    EXPECT(shmdt(memory[2]));
    struct shmid_ds now;
    EQUAL(shmctl(ids[2], IPC_STAT, &now), -1, "a removed segment that nobody is attached to");
    shmctl(ids[0], IPC_RMID, NULL);
    shmctl(ids[1], IPC_RMID, NULL);
    return end();
}
