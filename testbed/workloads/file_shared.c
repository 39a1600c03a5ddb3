/* workload: file_shared; kind: memory; user: any; about: shared mappings of a file, one to read and one to write, and the file itself */
#include "mappings.h"

#define PAGES 64
static struct area_list areas, read_only;

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *path = scratch("data");
    int fd = MUST(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    MUST(ftruncate(fd, PAGES * PAGE));
    char *map = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    int reader = MUST(open(path, O_RDONLY | O_CLOEXEC));
    char *view = MUST(mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, reader, 8 * PAGE));
    MUST(close(reader));
    for (size_t i = 0; i < PAGES; i++)
        fill(map + i * PAGE, PAGE, i);
    unsigned long from = (unsigned long)map, to = from + PAGES * PAGE;
    read_areas(&areas, from, to);
    read_areas(&read_only, (unsigned long)view, (unsigned long)view + 8 * PAGE);
    uint64_t round = 0;
    ready();
    while (running()) {
        round++;
        memcpy(map + 20 * PAGE, &round, sizeof round);
        uint64_t seen = 0;
        EQUAL(pread(fd, &seen, sizeof seen, 20 * PAGE), sizeof seen, "pread");
        EQUAL(seen, round, "what was written by the mapping and read from the file");
    }
    verify_areas(&areas, from, to);
    verify_areas(&read_only, (unsigned long)view, (unsigned long)view + 8 * PAGE);
    memcpy(&round, map + 20 * PAGE, sizeof round);
    for (size_t i = 0; i < PAGES; i++)
        if (i != 20)
            verify_fill(map + i * PAGE, PAGE, i, "a shared page");
    char buffer[PAGE];
    fill(buffer, PAGE, 500);
    EQUAL(pwrite(fd, buffer, PAGE, 9 * PAGE), PAGE, "pwrite");
    verify_fill(view + PAGE, PAGE, 500, "what was written to the file, seen in the read-only mapping");
    fill(map + 10 * PAGE, PAGE, 600);
    verify_fill(view + 2 * PAGE, PAGE, 600, "what was written by one mapping, seen in the other");
    EQUAL(mprotect(view, PAGE, PROT_READ | PROT_WRITE), -1, "writing to a mapping of a file opened for reading");
    struct stat by_path, by_fd;
    EXPECT(stat(path, &by_path));
    EXPECT(fstat(fd, &by_fd));
    EQUAL(by_fd.st_ino, by_path.st_ino, "inode");
    EQUAL(by_fd.st_size, PAGES * PAGE, "size");
    unlink(path);
    return end();
}
