/* BOARD BYTES: a process with so much private memory, all of it touched, random content. */
#include "board.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t bytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    void *memory = MUST(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(memory, bytes, 1);
    work();
    verify_fill(memory, bytes, 1, "memory");
    return end();
}
