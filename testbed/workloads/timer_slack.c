/* workload: timer_slack; kind: clock; user: any; refusal: allowed; about: timer slack per thread, and what a child inherits */
#include "workload.h"

static atomic_int up, stop;

static void *run(void *unused)
{
    (void)unused;
    MUST(prctl(PR_SET_TIMERSLACK, 7777777));
    up = 1;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(prctl(PR_GET_TIMERSLACK), 7777777, "timer slack of a thread");
    return NULL;
}

static void inherited(void *unused)
{
    (void)unused;
    EQUAL(prctl(PR_GET_TIMERSLACK), 123456, "timer slack inherited by a child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int initial = prctl(PR_GET_TIMERSLACK);
    pthread_t other = thread(run, NULL);
    while (!up)
        sched_yield();
    MUST(prctl(PR_SET_TIMERSLACK, 123456));
    ready();
    while (running())
        ;
    EQUAL(prctl(PR_GET_TIMERSLACK), 123456, "timer slack");
    collect(child(inherited, NULL));
    EXPECT(prctl(PR_SET_TIMERSLACK, 0)); /* back to the default */
    EQUAL(prctl(PR_GET_TIMERSLACK), initial, "default timer slack");
    stop = 1;
    pthread_join(other, NULL);
    return end();
}
