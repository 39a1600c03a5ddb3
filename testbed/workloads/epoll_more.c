/* workload: epoll_more; kind: file; user: any; about: epoll sets with signalfds and timers, edges that wait, exclusive edges, a set of a child's, one-shots fired on every sort of member */
#include "workload.h"
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static struct epoll_event events[32];

/* The members that a set tells now: a bit for each one's data. */
static uint64_t told(int set, int timeout)
{
    uint64_t seen = 0;
    int number = epoll_wait(set, events, 32, timeout);
    for (int i = 0; i < number; i++)
        seen |= 1UL << events[i].data.u64;
    return seen;
}

static void add(int set, int fd, uint32_t bits, uint64_t number)
{
    struct epoll_event event = {.events = bits, .data.u64 = number};
    MUST(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static void idle(void *argument)
{
    int set = (int)(intptr_t)argument;
    while (running())
        ;
    EQUAL(told(set, 0), 1 << 1, "an edge that waits, seen by a child");
    EQUAL(told(set, 0), 0, "the same edge again");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    /* Edges of ready files: one told, one that waits; nothing level-triggered hides the difference. */
    int quiet = MUST(epoll_create1(0)), waits = MUST(epoll_create1(0)), mixed = MUST(epoll_create1(0));
    int count[6];
    for (int i = 0; i < 6; i++)
        count[i] = MUST(eventfd(1, EFD_NONBLOCK));
    add(quiet, count[0], EPOLLIN | EPOLLET, 1);
    EQUAL(told(quiet, 0), 1 << 1, "an edge");
    add(waits, count[1], EPOLLIN | EPOLLET, 1);
    add(mixed, count[2], EPOLLIN | EPOLLET, 2);
    EQUAL(told(mixed, 0), 1 << 2, "an edge");
    add(mixed, count[3], EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, 3);
    add(mixed, count[4], EPOLLIN | EPOLLONESHOT, 4);
    add(mixed, count[5], EPOLLIN, 5);
    pid_t pid = child(idle, (void *)(intptr_t)waits);
    /* A signalfd and a timer: the loop sleeps in epoll_wait until they tell. */
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    MUST(sigprocmask(SIG_BLOCK, &one, NULL));
    int loop = MUST(epoll_create1(EPOLL_CLOEXEC)), signals = MUST(signalfd(-1, &one, SFD_NONBLOCK));
    int timer = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)), later = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    struct itimerspec far = {{0, 0}, {1000, 0}}, soon = {{0, 0}, {0, 1000000}};
    add(loop, signals, EPOLLIN, 6);
    add(loop, timer, EPOLLIN | EPOLLET, 7);
    MUST(timerfd_settime(timer, 0, &soon, NULL));
    EQUAL(told(loop, 1000), 1 << 7, "a timer's edge"); /* told, not read */
    /* One-shots that have fired on files which are not ready any more. */
    int fired = MUST(epoll_create1(0)), inner = MUST(epoll_create1(0)), ends[2], full[2];
    MUST(pipe(ends));
    MUST(pipe2(full, O_NONBLOCK));
    uint64_t value;
    add(fired, later, EPOLLIN | EPOLLONESHOT, 8);
    add(fired, ends[0], EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, 9);
    add(fired, inner, EPOLLIN | EPOLLONESHOT | EPOLLET, 10);
    add(inner, ends[0], EPOLLIN, 0);
    MUST(timerfd_settime(later, 0, &soon, NULL));
    MUST(write(ends[1], "x", 1));
    sleep_seconds(0.01);
    EQUAL(told(fired, 0), 7 << 8, "one-shots");
    MUST(timerfd_settime(later, 0, &far, NULL));
    MUST(read(ends[0], &value, 1));
    ready();
    while (running())
        ;
    EQUAL(told(quiet, 0), 0, "an edge that was told before");
    EQUAL(told(mixed, 0), 7 << 3, "what waits beside an edge that was told before");
    EQUAL(told(mixed, 0), 1 << 5, "what is left of it");
    stop_and_collect(pid);
    EQUAL(told(waits, 0), 0, "an edge that a child was told");
    EQUAL(told(loop, 0), 0, "a timer's edge that was told before");
    EQUAL(read(timer, &value, 8), 8, "read of the timer");
    EQUAL(value, 1, "ticks");
    MUST(timerfd_settime(timer, 0, &soon, NULL));
    EQUAL(told(loop, 1000), 1 << 7, "a timer's edge");
    MUST(kill(getpid(), SIGUSR1));
    EQUAL(told(loop, 1000), 1 << 6, "a signal");
    /* A signal that comes while the loop sleeps wakes it only if the signalfd listens to this very process. */
    struct signalfd_siginfo info;
    EQUAL(read(signals, &info, sizeof info), sizeof info, "read of a signal");
    pid = MUST(fork());
    if (pid == 0) {
        sleep_seconds(0.2);
        kill(getppid(), SIGUSR1);
        _exit(0);
    }
    double start = real_time();
    EQUAL(told(loop, 5000), 1 << 6, "a signal while asleep");
    CHECK(real_time() - start < 3, "the signal was seen after %f s", real_time() - start);
    collect(pid);
    /* Silent, also for errors, until they are armed again. */
    EQUAL(write(ends[1], "y", 1), 1, "write");
    EXPECT(timerfd_settime(later, 0, &soon, NULL));
    sleep_seconds(0.01);
    EQUAL(told(fired, 0), 0, "one-shots that have fired");
    close(ends[1]);
    EQUAL(told(fired, 0), 0, "a one-shot that has fired, hung up");
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 9};
    EQUAL(epoll_ctl(fired, EPOLL_CTL_MOD, ends[0], &event), 0, "arming again");
    EQUAL(told(fired, 0), 1 << 9, "a one-shot that was armed again");
    EQUAL(told(inner, 0), 1, "the inner set");
    EXPECT(read(later, &value, 8));
    EQUAL(value, 1, "ticks of a timer in a set");
    return end();
}
