/* workload: eventfd; kind: file; user: any; about: eventfds with counts, semaphore mode, flags, shared with a child, one full */
#include "workload.h"

static int fds[5];

static void other(void *unused)
{
    (void)unused;
    while (running())
        ;
    uint64_t three = 3;
    EQUAL(write(fds[0], &three, 8), 8, "write by a child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    uint64_t counts[] = {4711, 5, 0, UINT64_MAX - 1, 1};
    int flags[] = {0, EFD_SEMAPHORE, EFD_NONBLOCK | EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC};
    for (int i = 0; i < 5; i++) {
        fds[i] = MUST(eventfd(0, flags[i]));
        if (counts[i])
            MUST(write(fds[i], &counts[i], 8));
    }
    int again = MUST(dup(fds[0]));
    pid_t pid = child(other, NULL);
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    uint64_t value = 1;
    EQUAL(write(fds[3], &value, 8), -1, "write to a full eventfd");
    EQUAL(read(fds[2], &value, 8), -1, "read of an empty eventfd");
    EQUAL(errno, EAGAIN, "errno");
    for (int i = 0; i < 5; i++) {
        EQUAL(read(fds[2], &value, 8), -1, "read of an empty eventfd");
        EQUAL(read(fds[1], &value, 8), 8, "read of a semaphore");
        EQUAL(value, 1, "semaphore");
    }
    EXPECT(fcntl(fds[1], F_SETFL, O_NONBLOCK));
    EQUAL(read(fds[1], &value, 8), -1, "a sixth read of a semaphore of five");
    EQUAL(read(fds[3], &value, 8), 8, "read of a full eventfd");
    EQUAL(value, UINT64_MAX - 1, "count");
    EQUAL(read(fds[4], &value, 8), 8, "read");
    EQUAL(value, 1, "count");
    stop_and_collect(pid);
    EQUAL(read(again, &value, 8), 8, "read through a dup");
    EQUAL(value, 4714, "count");
    return end();
}
