/* BOARD BYTES RATE: so much private memory with random contents, of which it writes RATE pages in each second, chosen at random;
 * 0: none, -1: as many as it can. Every write is counted twice, in the page and beside: a page in an old version is found. */
#include "board.h"

enum { PAGE = 4096, WORDS = PAGE / 8 };

static uint64_t *memory, *written;
static uint64_t pages, random_state = 1;

static void write_one(void)
{
    uint64_t page = mixed(random_state++) % pages;
    memory[page * WORDS]++;
    written[page]++;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t bytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    long rate = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    pages = bytes / PAGE;
    memory = MUST(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    size_t counts = (pages * 8 + PAGE - 1) / PAGE * PAGE;
    written = MUST(mmap(NULL, counts, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(memory, bytes, 1);
    for (uint64_t page = 0; page < pages; page++)
        memory[page * WORDS] = 0;
    board->phase = READY;
    uint64_t last = real_time(), began = last, done = 0;
    while (look(&last)) {
        if (rate < 0)
            write_one();
        if (rate <= 0)
            continue;
        uint64_t due = (uint64_t)((double)(last - began) / 1e9 * (double)rate);
        /* What it could not write while it did not run it does not write later. */
        if (due > done + (uint64_t)rate / 50 + 1) {
            began = last;
            due = done = 0;
        }
        for (; done < due; done++)
            write_one();
    }
    for (uint64_t page = 0; page < pages; page++) {
        EXPECT(memory[page * WORDS] == written[page], "page %lu was written %lu times and says %lu", page, written[page],
               memory[page * WORDS]);
        for (unsigned i = 1; i < WORDS; i++)
            EXPECT(memory[page * WORDS + i] == mixed(0x100000001 + page * WORDS + i), "word %u of page %lu differs", i, page);
    }
    return end();
}
