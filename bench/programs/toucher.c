/* BOARD BYTES: so much private memory with random contents, whose pages it reads one after another in no order, and how long it
 * waits for each. */
#include "board.h"

enum { PAGE = 4096, WORDS = PAGE / 8 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t bytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    uint64_t *memory = MUST(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(memory, bytes, 1);
    board->phase = READY;
    uint64_t last = real_time(), pages = bytes / PAGE, count = 0;
    while (look(&last)) {
        /* Each step can be undone within a power of two, so that every page has its turn. */
        uint64_t page = count * 0x9e3779b1 % pages;
        page ^= page >> 7;
        page = page * 0x85ebca6b % pages;
        uint64_t before = real_time();
        EXPECT(memory[page * WORDS + 1] == mixed(0x100000001 + page * WORDS + 1), "page %lu differs", page);
        note_stall(real_time() - before);
        count++;
    }
    verify_fill(memory, bytes, 1, "memory");
    return end();
}
