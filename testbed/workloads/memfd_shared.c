/* workload: memfd_shared; kind: memory; user: any; about: a memfd mapped and written by two processes, through mapping and descriptor */
#include "mappings.h"

#define SIZE (2 * MIB)
static int fd;
static char *memory;
static atomic_ulong *turn;

static void other(void *unused)
{
    (void)unused;
    /* A mapping of its own, elsewhere and of a part. */
    char *mine = MUST(mmap(NULL, SIZE / 2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, SIZE / 2));
    MUST(munmap(memory + SIZE / 2, SIZE / 2));
    *turn = 1;
    while (running())
        if (*turn % 2 == 0) {
            uint64_t seen = 0, now = *turn;
            EQUAL(pread(fd, &seen, 8, PAGE), 8, "pread");
            EQUAL(seen, now, "what the parent wrote to its mapping");
            memcpy(mine + PAGE, &now, 8);
            (*turn)++;
        }
    verify_fill(mine + 2 * PAGE, SIZE / 2 - 2 * PAGE, 2, "second half in the child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    fd = MUST(memfd_create("shared memory, \"odd\" name", 0));
    MUST(ftruncate(fd, SIZE + 100));
    memory = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    turn = (atomic_ulong *)memory;
    fill(memory + 2 * PAGE, SIZE / 2 - 2 * PAGE, 1);
    fill(memory + SIZE / 2 + 2 * PAGE, SIZE / 2 - 2 * PAGE, 2);
    MUST(pwrite(fd, "the end", 7, SIZE + 93));
    MUST(lseek(fd, 12345, SEEK_SET));
    pid_t pid = child(other, NULL);
    while (*turn == 0)
        sched_yield();
    char *name = descriptor_target(fd);
    ready();
    bool last = false;
    for (int more = 50; more; more -= last) {
        last = last || !running();
        if (last)
            sleep_seconds(0.002);
        if (*turn % 2 == 1) {
            uint64_t seen, next = *turn + 1;
            memcpy(&seen, memory + SIZE / 2 + PAGE, 8);
            if (next > 2)
                EQUAL(seen, next - 2, "what the child wrote to its mapping");
            memcpy(memory + PAGE, &next, 8);
            *turn = next;
        }
    }
    unsigned long before = *turn;
    CHECK(before > 20, "only %lu turns", before);
    char *now = descriptor_target(fd);
    verify_text(now, name, "name");
    EQUAL(lseek(fd, 0, SEEK_CUR), 12345, "offset");
    struct stat status;
    EXPECT(fstat(fd, &status));
    EQUAL(status.st_size, SIZE + 100, "size");
    char text[8] = "";
    EQUAL(pread(fd, text, 7, SIZE + 93), 7, "pread");
    verify_text(text, "the end", "end");
    verify_fill(memory + 2 * PAGE, SIZE / 2 - 2 * PAGE, 1, "first half");
    verify_fill(memory + SIZE / 2 + 2 * PAGE, SIZE / 2 - 2 * PAGE, 2, "second half");
    stop_and_collect(pid);
    return end();
}
