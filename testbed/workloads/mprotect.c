/* workload: mprotect; kind: memory; user: any; about: areas of every mixture of rights, with contents */
#include "mappings.h"
#include <setjmp.h>

static struct area_list areas;
static sigjmp_buf back;

static void on_fault(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static bool faults(volatile char *address, bool write)
{
    if (sigsetjmp(back, 1))
        return true;
    if (write)
        *address = *address;
    else
        (void)*address;
    return false;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int rights[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC,
                    PROT_READ | PROT_WRITE | PROT_EXEC, PROT_WRITE, PROT_EXEC};
    size_t count = 140, size = 2 * PAGE;
    char *region = MUST(mmap(NULL, count * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    unsigned long from = (unsigned long)region, to = from + count * size;
    for (size_t i = 0; i < count; i++) {
        fill(region + i * size, size, i);
        MUST(mprotect(region + i * size, size, rights[i % COUNT(rights)]));
    }
    /* A function of its own, in memory that may be run: returns 42. */
    unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
    char *program = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memcpy(program, code, sizeof code);
    MUST(mprotect(program, PAGE, PROT_READ | PROT_EXEC));
    int (*function)(void) = (int (*)(void))(void *)program;
    signal(SIGSEGV, on_fault);
    read_areas(&areas, from, to);
    ready();
    while (running())
        EQUAL(function(), 42, "code in private memory");
    verify_areas(&areas, from, to);
    for (size_t i = 0; i < COUNT(rights); i++) {
        char *area = region + i * size;
        /* x86 cannot forbid reading what may be written; what may only be run is hidden where keys exist. */
        if (rights[i] != PROT_EXEC)
            EQUAL(faults(area, false), rights[i] == PROT_NONE, "fault on reading");
        EQUAL(faults(area, true), !(rights[i] & PROT_WRITE), "fault on writing");
    }
    for (size_t i = 0; i < count; i++) {
        EXPECT(mprotect(region + i * size, size, PROT_READ));
        verify_fill(region + i * size, size, i, "an area");
    }
    return end();
}
