/* workload: personality; kind: rights; user: any; about: execution domain flags of a process and of a thread */
#include "workload.h"
#include <sys/personality.h>

static atomic_int up, stop;

static void *run(void *unused)
{
    (void)unused;
    MUST(personality(ADDR_NO_RANDOMIZE | SHORT_INODE));
    up = 1;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(personality(0xffffffff), ADDR_NO_RANDOMIZE | SHORT_INODE, "personality of a thread");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pthread_t other = thread(run, NULL);
    while (!up)
        sched_yield();
    MUST(personality(READ_IMPLIES_EXEC | UNAME26));
    ready();
    while (running())
        ;
    EQUAL(personality(0xffffffff), READ_IMPLIES_EXEC | UNAME26, "personality");
    stop = 1;
    pthread_join(other, NULL);
    return end();
}
