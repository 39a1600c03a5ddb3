/* workload: deleted_mapping; kind: memory; user: any; about: mappings of files that have no name any more, shared and private */
#include "mappings.h"

#define SIZE (256 * KIB)
static struct area_list areas[2];

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *map[2], *again = NULL, *path[2] = {scratch("shared"), scratch("private")};
    for (int i = 0; i < 2; i++) {
        int fd = MUST(open(path[i], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        char *bytes = malloc(SIZE);
        fill(bytes, SIZE, (uint64_t)i);
        MUST(write(fd, bytes, SIZE));
        free(bytes);
        map[i] = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, i ? MAP_PRIVATE : MAP_SHARED, fd, 0));
        if (i == 0)
            again = MUST(mmap(NULL, SIZE / 2, PROT_READ, MAP_SHARED, fd, SIZE / 2));
        MUST(unlink(path[i]));
        MUST(close(fd));
    }
    fill(map[1] + 8 * PAGE, PAGE, 30);
    for (int i = 0; i < 2; i++) {
        read_areas(&areas[i], (unsigned long)map[i], (unsigned long)map[i] + SIZE);
        for (size_t k = 0; k < areas[i].count; k++) /* a new file may have another inode */
            areas[i].areas[k].inode = 0;
    }
    ready();
    while (running())
        ;
    for (int i = 0; i < 2; i++) {
        struct area_list now;
        read_areas(&now, (unsigned long)map[i], (unsigned long)map[i] + SIZE);
        EQUAL(now.count, areas[i].count, "areas");
        for (size_t k = 0; k < now.count && k < areas[i].count; k++) {
            verify_text(now.areas[k].protection, areas[i].areas[k].protection, "rights");
            verify_text(now.areas[k].name, areas[i].areas[k].name, "name");
            verify_text(now.areas[k].flags, areas[i].areas[k].flags, "flags");
            EQUAL(now.areas[k].offset, areas[i].areas[k].offset, "offset");
        }
        EQUAL(access(path[i], F_OK), -1, "the name is back");
    }
    verify_fill(map[0], SIZE, 0, "shared mapping of a deleted file");
    fill(map[0] + SIZE / 2 + PAGE, PAGE, 40);
    verify_fill(again + PAGE, PAGE, 40, "the second mapping of the deleted file");
    for (size_t page = 0; page < SIZE / PAGE; page++)
        if (page == 8)
            verify_fill(map[1] + page * PAGE, PAGE, 30, "changed page of a deleted file");
    char *expected = malloc(SIZE);
    fill(expected, SIZE, 1);
    CHECK(memcmp(map[1], expected, 8 * PAGE) == 0, "private mapping of a deleted file differs");
    CHECK(memcmp(map[1] + 9 * PAGE, expected + 9 * PAGE, SIZE - 9 * PAGE) == 0, "private mapping of a deleted file differs");
    return end();
}
