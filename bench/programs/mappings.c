/* BOARD COUNT: so many mappings of two pages that the kernel cannot join, every second one read-only; the first page of
 * each has contents. */
#include "board.h"

enum { PAGE = 4096, BYTES = 2 * PAGE };

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    char *memory = MUST(mmap(NULL, count * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(madvise(memory, count * BYTES, MADV_NOHUGEPAGE));
    for (size_t i = 0; i < count; i++) {
        fill(memory + i * BYTES, PAGE, i);
        if (i % 2)
            MUST(mprotect(memory + i * BYTES, BYTES, PROT_READ));
    }
    work();
    for (size_t i = 0; i < count; i++) {
        verify_fill(memory + i * BYTES, PAGE, i, "a mapping");
        if (i % 2 == 0)
            memory[i * BYTES + PAGE] = 1;
    }
    return end();
}
