/* workload: blocked_poll; kind: blocked; user: any; about: poll, ppoll, select, pselect, epoll_wait with and without time-out */
#include "blocked.h"

static int ends[10][2], epoll[2];
#define TIMED (ends[8][0])

static long one_poll(int fd, int timeout)
{
    struct pollfd set[2] = {{fd, POLLIN, 0}, {ends[9][0], POLLIN, 0}};
    long result = poll(set, 2, timeout);
    if (result > 0)
        EQUAL(set[0].revents, POLLIN, "events of poll");
    return result;
}
static long one_ppoll(int fd, bool timed)
{
    struct pollfd set = {fd, POLLIN, 0};
    struct timespec time = {2, 0};
    sigset_t mask;
    sigfillset(&mask);
    return ppoll(&set, 1, timed ? &time : NULL, &mask);
}
static long one_select(int fd, bool timed)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    struct timeval time = {2, 0};
    long result = select(fd + 1, &set, NULL, NULL, timed ? &time : NULL);
    if (result > 0)
        EQUAL(FD_ISSET(fd, &set) != 0, 1, "descriptor of select");
    return result;
}
static long one_pselect(int fd, bool timed)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    struct timespec time = {2, 0};
    sigset_t mask;
    sigfillset(&mask);
    return pselect(fd + 1, &set, NULL, NULL, timed ? &time : NULL, &mask);
}
static long one_epoll(int set, int timeout)
{
    struct epoll_event event[2];
    long result = epoll_wait(set, event, 2, timeout);
    if (result > 0)
        EQUAL(event[0].data.u64, 0x1122334455667788, "data of epoll_wait");
    return result;
}
static long do_poll(void) { return one_poll(ends[0][0], -1); }
static long do_poll_timed(void) { return one_poll(TIMED, 2000); }
static long do_ppoll(void) { return one_ppoll(ends[1][0], false); }
static long do_ppoll_timed(void) { return one_ppoll(TIMED, true); }
static long do_select(void) { return one_select(ends[2][0], false); }
static long do_select_timed(void) { return one_select(TIMED, true); }
static long do_pselect(void) { return one_pselect(ends[3][0], false); }
static long do_pselect_timed(void) { return one_pselect(TIMED, true); }
static long do_epoll(void) { return one_epoll(epoll[0], -1); }
static long do_epoll_timed(void) { return one_epoll(epoll[1], 2000); }
static long do_epoll_pwait(void)
{
    struct epoll_event event;
    sigset_t mask;
    sigfillset(&mask);
    return epoll_pwait(epoll[1], &event, 1, 2000, &mask);
}
static long do_epoll_pwait2(void)
{
    struct epoll_event event;
    struct timespec time = {2, 0};
    return syscall(SYS_epoll_pwait2, epoll[1], &event, 1, &time, NULL, 0);
}

static void wake(void)
{
    for (int i = 0; i < 5; i++)
        EQUAL(write(ends[i][1], "x", 1), 1, "write");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (size_t i = 0; i < COUNT(ends); i++)
        MUST(pipe(ends[i]));
    for (int i = 0; i < 2; i++) {
        epoll[i] = MUST(epoll_create1(0));
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1122334455667788};
        MUST(epoll_ctl(epoll[i], EPOLL_CTL_ADD, i ? ends[9][0] : ends[4][0], &event));
    }
    struct blocked list[] = {{.name = "poll", .call = do_poll, .expected = 1},
                             {.name = "poll, timed", .call = do_poll_timed, .timeout = 2},
                             {.name = "ppoll", .call = do_ppoll, .expected = 1},
                             {.name = "ppoll, timed", .call = do_ppoll_timed, .timeout = 2},
                             {.name = "select", .call = do_select, .expected = 1},
                             {.name = "select, timed", .call = do_select_timed, .timeout = 2},
                             {.name = "pselect", .call = do_pselect, .expected = 1},
                             {.name = "pselect, timed", .call = do_pselect_timed, .timeout = 2},
                             {.name = "epoll_wait", .call = do_epoll, .expected = 1},
                             {.name = "epoll_wait, timed", .call = do_epoll_timed, .timeout = 2},
                             {.name = "epoll_pwait, timed", .call = do_epoll_pwait, .timeout = 2},
                             {.name = "epoll_pwait2, timed", .call = do_epoll_pwait2, .timeout = 2}};
    BLOCKED_ALL(list, wake);
    return end();
}
