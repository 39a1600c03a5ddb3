/* workload: heap; kind: memory; user: any; about: blocks of malloc and the program break, growing and shrinking after the move */
#include "mappings.h"

#define BLOCKS 4000
static struct { char *memory; size_t size; } blocks[BLOCKS];

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (uint64_t i = 0; i < BLOCKS; i++) {
        blocks[i].size = 16 + mixed(i) % 3000;
        blocks[i].memory = malloc(blocks[i].size);
        fill(blocks[i].memory, blocks[i].size, i);
    }
    for (uint64_t i = 0; i < BLOCKS; i += 3) {
        free(blocks[i].memory);
        blocks[i].memory = NULL;
    }
    char *big = malloc(3 * MIB);
    fill(big, 3 * MIB, 9999);
    char *top = sbrk(0);
    uint64_t round = 0;
    ready();
    while (running()) {
        uint64_t i = round++ % BLOCKS;
        if (!blocks[i].memory) {
            blocks[i].memory = malloc(blocks[i].size);
            fill(blocks[i].memory, blocks[i].size, i);
        } else {
            verify_fill(blocks[i].memory, blocks[i].size, i, "a block");
            free(blocks[i].memory);
            blocks[i].memory = NULL;
        }
    }
    char *now = sbrk(0);
    EQUAL(now, top, "program break");
    char *grown = EXPECT(sbrk(2 * MIB));
    EQUAL(grown, top, "start of what the heap grew by");
    verify_zero(grown, 2 * MIB, "what the heap grew by");
    fill(grown, 2 * MIB, 77);
    verify_fill(grown, 2 * MIB, 77, "what the heap grew by");
    EXPECT(sbrk(-(intptr_t)(2 * MIB)));
    EQUAL(sbrk(0), top, "program break after shrinking");
    for (uint64_t i = 0; i < BLOCKS; i++)
        if (blocks[i].memory) {
            verify_fill(blocks[i].memory, blocks[i].size, i, "a block");
            free(blocks[i].memory);
        }
    verify_fill(big, 3 * MIB, 9999, "a large block");
    free(big);
    return end();
}
