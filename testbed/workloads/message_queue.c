/* workload: message_queue; kind: ipc; user: any; about: POSIX message queues: messages with priorities, attributes, a name, one without a name, notification */
#include "workload.h"
#include <mqueue.h>

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *name = formatted("/workload-%d-%d", getpid(), getuid()), *other = formatted("/unnamed-%d-%d", getpid(), getuid());
    struct mq_attr attributes = {.mq_maxmsg = 8, .mq_msgsize = 300}, now;
    mq_unlink(name);
    mqd_t queue = MUST(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0640, &attributes));
    mqd_t nonblocking = MUST(mq_open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    mqd_t unnamed = MUST(mq_open(other, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes));
    MUST(mq_unlink(other));
    unsigned priorities[] = {5, 0, 31, 5, 100};
    char text[300];
    for (int i = 0; i < 5; i++) {
        snprintf(text, sizeof text, "message %d", i);
        MUST(mq_send(queue, text, strlen(text) + (i == 2 ? 100U : 0U), priorities[i]));
    }
    MUST(mq_send(unnamed, "nameless", 8, 1));
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    mqd_t notifying = MUST(mq_open("/notify", O_RDWR | O_CREAT | O_CLOEXEC, 0600, &attributes));
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 99};
    int notified = mq_notify(notifying, &event);
    mq_unlink("/notify");
    ready();
    while (running())
        ;
    EXPECT(mq_getattr(queue, &now));
    EQUAL(now.mq_maxmsg, 8, "room for messages");
    EQUAL(now.mq_msgsize, 300, "size of messages");
    EQUAL(now.mq_curmsgs, 5, "messages");
    EQUAL(now.mq_flags & O_NONBLOCK, 0, "flags");
    EXPECT(mq_getattr(nonblocking, &now));
    EQUAL(now.mq_flags & O_NONBLOCK, O_NONBLOCK, "flags");
    static const int order[] = {4, 2, 0, 3, 1};
    for (int i = 0; i < 5; i++) {
        char expected[32];
        unsigned priority = 0;
        memset(text, 0, sizeof text);
        snprintf(expected, sizeof expected, "message %d", order[i]);
        long size = mq_receive(nonblocking, text, sizeof text, &priority);
        EQUAL(size, strlen(expected) + (order[i] == 2 ? 100 : 0), "size of a message");
        EQUAL(priority, priorities[order[i]], "priority");
        verify_text(text, expected, "message");
    }
    EQUAL(mq_receive(nonblocking, text, sizeof text, NULL), -1, "a message too many");
    struct mq_attr impatient = {.mq_flags = O_NONBLOCK}; /* a lost message is told, not waited for */
    EXPECT(mq_setattr(queue, &impatient, NULL));
    EXPECT(mq_setattr(unnamed, &impatient, NULL));
    mqd_t again = mq_open(name, O_RDWR | O_CLOEXEC);
    CHECK(again != -1, "opening the queue by its name: %s", strerror(errno));
    EQUAL(mq_send(again, "late", 4, 0), 0, "mq_send");
    EQUAL(mq_receive(queue, text, sizeof text, NULL), 4, "message sent by another description");
    EQUAL(mq_receive(unnamed, text, sizeof text, NULL), 8, "message of a queue without a name");
    if (notified == 0) {
        EQUAL(mq_send(notifying, "x", 1, 0), 0, "mq_send");
        struct timespec second = {1, 0};
        siginfo_t info;
        EQUAL(sigtimedwait(&blocked, &info, &second), SIGRTMIN + 1, "notification");
        EQUAL(info.si_value.sival_int, 99, "value of the notification");
    }
    struct stat status;
    EXPECT(fstat(queue, &status));
    EQUAL(status.st_mode & 0777, 0640, "mode");
    mq_unlink(name);
    return end();
}
