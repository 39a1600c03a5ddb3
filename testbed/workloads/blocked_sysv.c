/* workload: blocked_sysv; kind: blocked; user: any; about: waiting in System V queues and semaphores */
#include "blocked.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

static int queue, semaphores;
struct message { long kind; char text[8]; };

static long do_msgrcv(void)
{
    struct message message;
    long result = msgrcv(queue, &message, 8, 3, 0);
    CHECK(result == 8 && memcmp(message.text, "the text", 8) == 0, "msgrcv: what was received differs");
    return result;
}
static long do_semop(void)
{
    struct sembuf operation = {0, -1, 0};
    return semop(semaphores, &operation, 1);
}
static long do_semtimedop(void)
{
    struct sembuf operation = {1, -1, 0};
    struct timespec time = {2, 0};
    return semtimedop(semaphores, &operation, 1, &time);
}
static void wake(void)
{
    struct message message = {3, "the tex"};
    message.text[7] = 't';
    EXPECT(msgsnd(queue, &message, 8, 0));
    struct sembuf operation = {0, 1, 0};
    EXPECT(semop(semaphores, &operation, 1));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    queue = MUST(msgget(IPC_PRIVATE, 0600));
    semaphores = MUST(semget(IPC_PRIVATE, 2, 0600));
    struct message other = {7, "waiting"};
    MUST(msgsnd(queue, &other, 8, 0));
    struct blocked list[] = {
        {.name = "msgrcv", .call = do_msgrcv, .expected = 8},
        {.name = "semop", .call = do_semop},
        {.name = "semtimedop", .call = do_semtimedop, .timeout = 2, .expected = -1, .expected_errno = EAGAIN}};
    BLOCKED_ALL(list, wake);
    EQUAL(msgrcv(queue, &other, 8, 7, IPC_NOWAIT), 8, "message that waited in the queue");
    verify_text(other.text, "waiting", "message that waited in the queue");
    msgctl(queue, IPC_RMID, NULL);
    semctl(semaphores, 0, IPC_RMID);
    return end();
}
