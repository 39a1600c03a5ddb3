/* workload: sysv_objects; kind: ipc; user: any; about: System V semaphores with undo and message queues with messages */
#include "workload.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

static int semaphores;

static void holder(void *argument)
{
    struct sembuf take = {1, -3, SEM_UNDO};
    MUST(semop(semaphores, &take, 1));
    *(atomic_int *)argument = 1;
    while (running())
        ;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    key_t key = 0x5e000000 + getpid() * 4096 + (int)getuid();
    semaphores = MUST(semget(key, 3, IPC_CREAT | IPC_EXCL | 0640));
    int queue = MUST(msgget(key, IPC_CREAT | IPC_EXCL | 0600));
    for (int i = 0; i < 3; i++)
        MUST(semctl(semaphores, i, SETVAL, 10 * i + 5));
    struct { long kind; char text[500]; } message;
    long kinds[] = {3, 1, 3, 7};
    for (int i = 0; i < 4; i++) {
        message.kind = kinds[i];
        fill(message.text, 100 + (size_t)i * 96, (uint64_t)i);
        MUST(msgsnd(queue, &message, 100 + (size_t)i * 96, 0));
    }
    atomic_int *up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(holder, up);
    while (!*up)
        sched_yield();
    ready();
    while (running())
        ;
    EQUAL(semget(key, 3, 0), semaphores, "semaphores found by their key");
    EQUAL(msgget(key, 0), queue, "queue found by its key");
    EQUAL(semctl(semaphores, 0, GETVAL), 5, "semaphore");
    EQUAL(semctl(semaphores, 1, GETVAL), 12, "semaphore that a child holds");
    EQUAL(semctl(semaphores, 1, GETPID), pid, "process that used a semaphore last");
    stop_and_collect(pid);
    EQUAL(semctl(semaphores, 1, GETVAL), 15, "semaphore after its holder has ended");
    static const int order[] = {1, 0, 2, 3};
    static const long wanted[] = {1, 3, 3, 0};
    for (int i = 0; i < 4; i++) {
        size_t size = 100 + (size_t)order[i] * 96;
        EQUAL(msgrcv(queue, &message, sizeof message.text, wanted[i], IPC_NOWAIT), size, "size of a message");
        verify_fill(message.text, size / 8 * 8, (uint64_t)order[i], "message");
    }
    semctl(semaphores, 0, IPC_RMID);
    msgctl(queue, IPC_RMID, NULL);
    return end();
}
