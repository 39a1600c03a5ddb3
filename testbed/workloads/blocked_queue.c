/* workload: blocked_queue; kind: blocked; user: any; about: waiting in POSIX queues, eventfd, timerfd, inotify */
#include "blocked.h"
#include <mqueue.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>

static int event, timer, watch;
static mqd_t posix_queue;
static char *directory;

static long do_mq_receive(void)
{
    char text[64];
    return mq_receive(posix_queue, text, sizeof text, NULL);
}
static long do_mq_timed(void)
{
    char text[64];
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    time.tv_sec += 2;
    static mqd_t empty;
    if (!empty) {
        struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 64};
        char *name = formatted("/blocked-empty-%d-%d", getpid(), getuid());
        empty = mq_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600, &attributes);
        mq_unlink(name);
    }
    return mq_timedreceive(empty, text, sizeof text, NULL, &time);
}
static long do_eventfd(void)
{
    uint64_t count = 0;
    long result = read(event, &count, 8);
    EQUAL(count, 9, "count of an eventfd");
    return result;
}
static long do_timerfd(void)
{
    struct itimerspec time = {.it_value = {2, 0}};
    uint64_t ticks = 0;
    timerfd_settime(timer, 0, &time, NULL);
    long result = read(timer, &ticks, 8);
    EQUAL(ticks, 1, "ticks of a timerfd");
    return result;
}
static long do_inotify(void)
{
    char buffer[512] __attribute__((aligned(8)));
    long result = read(watch, buffer, sizeof buffer);
    return result > 0 ? ((struct inotify_event *)buffer)->mask : 0;
}
static void wake(void)
{
    EXPECT(mq_send(posix_queue, "posix", 5, 1));
    uint64_t nine = 9;
    EQUAL(write(event, &nine, 8), 8, "write to an eventfd");
    char *path = formatted("%s/new", directory);
    close(EXPECT(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600)));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *name = formatted("/blocked-%d-%d", getpid(), getuid());
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 64};
    posix_queue = MUST(mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes));
    event = MUST(eventfd(0, EFD_CLOEXEC));
    timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    directory = scratch("directory");
    MUST(mkdir(directory, 0700));
    watch = MUST(inotify_init1(IN_CLOEXEC));
    MUST(inotify_add_watch(watch, directory, IN_CREATE));
    struct blocked list[] = {
        {.name = "mq_receive", .call = do_mq_receive, .expected = 5},
        {.name = "mq_timedreceive", .call = do_mq_timed, .timeout = 2, .expected = -1, .expected_errno = ETIMEDOUT},
        {.name = "read of an eventfd", .call = do_eventfd, .expected = 8},
        {.name = "read of a timerfd", .call = do_timerfd, .timeout = 2, .expected = 8},
        {.name = "read of inotify", .call = do_inotify, .expected = IN_CREATE}};
    BLOCKED_ALL(list, wake);
    mq_unlink(name);
    return end();
}
