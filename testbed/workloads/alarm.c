/* workload: alarm; kind: clock; user: any; about: an alarm far away, and in a child one that rings after a second, once */
#include "workload.h"

static volatile sig_atomic_t rings;
static volatile double rang_at;
static atomic_int *up;

static void on_alarm(int signal)
{
    (void)signal;
    rings++;
    rang_at = real_time();
}

static void near(void *unused)
{
    (void)unused;
    signal(SIGALRM, on_alarm);
    double start = real_time();
    alarm(1);
    *up = 1;
    while (running())
        ;
    while (real_time() < start + 1.3 + (double)lost / 1e9 && !rings)
        sleep_seconds(0.01);
    EQUAL(rings, 1, "rings of an alarm");
    double late = rang_at - start - 1;
    CHECK(late > -0.01 && late < 0.3 + (double)lost / 1e9, "the alarm rang %f s late, %f s frozen", late, (double)lost / 1e9);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    alarm(10000);
    double start = real_time();
    pid_t pid = child(near, NULL);
    while (!*up)
        sched_yield();
    ready();
    while (running())
        ;
    double passed = real_time() - start, frozen = (double)lost / 1e9;
    unsigned left = alarm(0);
    CHECK(left <= 10000.5 - passed + frozen + 0.6 && left >= 10000 - passed - 0.6, "%u s left of 10000 after %f s", left, passed);
    stop_and_collect(pid);
    return end();
}
