/* workload: shared_anonymous; kind: memory; user: any; about: shared anonymous memory of a parent and two children */
#include "mappings.h"

#define SIZE (4 * MIB)
static char *memory;
static struct area_list areas;
struct control {
    atomic_ulong turn;
    atomic_int up;
};

/* Passes a turn on as long as it gets one: every pass writes a page that the next one verifies. */
static void pass_turns(uint64_t number)
{
    struct control *control = (struct control *)memory;
    unsigned long turn = control->turn;
    if (turn % 3 != number)
        return;
    char *page = memory + SIZE - PAGE;
    if (turn > 0)
        verify_fill(page, PAGE, turn - 1, "page written by another process");
    fill(page, PAGE, turn);
    control->turn = turn + 1;
}

static void taker(void *argument)
{
    struct control *control = (struct control *)memory;
    control->up++;
    while (running())
        pass_turns((uint64_t)argument);
    verify_fill(memory + PAGE, SIZE - 2 * PAGE - MIB, 1, "shared memory in a child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    memory = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    unsigned long from = (unsigned long)memory, to = from + SIZE;
    fill(memory + PAGE, SIZE - 2 * PAGE - MIB, 1);
    MUST(mprotect(memory + MIB, PAGE, PROT_READ));
    pid_t pids[2];
    struct control *control = (struct control *)memory;
    pids[0] = child(taker, (void *)1);
    pids[1] = child(taker, (void *)2);
    while (control->up < 2)
        sched_yield();
    read_areas(&areas, from, to);
    ready();
    while (running())
        pass_turns(0);
    verify_areas(&areas, from, to);
    unsigned long turn = control->turn;
    for (int i = 0; i < 3000 && control->turn < turn + 9; i++) {
        pass_turns(0);
        sleep_seconds(0.001);
    }
    CHECK(control->turn >= turn + 9, "the processes do not share memory any more: %lu turns", control->turn - turn);
    verify_fill(memory + PAGE, SIZE - 2 * PAGE - MIB, 1, "shared memory");
    verify_zero(memory + SIZE - MIB - PAGE, MIB, "untouched shared memory");
    stop_and_collect(pids[0]);
    stop_and_collect(pids[1]);
    return end();
}
