/* workload: file_private; kind: memory; user: any; about: private mapping of a file, some pages changed, the others still the file's */
#include "mappings.h"

#define PAGES 64
static struct area_list areas;

static void write_page(int fd, size_t page, uint64_t seed)
{
    char buffer[PAGE];
    fill(buffer, PAGE, seed);
    if (pwrite(fd, buffer, PAGE, (off_t)(page * PAGE)) != PAGE)
        die("pwrite: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *path = scratch("data");
    int fd = MUST(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    for (size_t i = 0; i < PAGES; i++)
        write_page(fd, i, i);
    MUST(ftruncate(fd, PAGES * PAGE - 100)); /* the last page is partly beyond the end */
    char *map = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    char *later = MUST(mmap(NULL, 8 * PAGE, PROT_READ, MAP_PRIVATE, fd, 16 * PAGE));
    for (size_t i = 0; i < PAGES; i += 5)
        fill(map + i * PAGE, PAGE, 1000 + i);
    (void)*(volatile char *)(map + PAGE);
    MUST(close(fd));
    unsigned long from = (unsigned long)map, to = from + PAGES * PAGE;
    read_areas(&areas, from, to);
    uint64_t round = 0;
    ready();
    while (running()) {
        map[(round % 13) * 5 * PAGE] ^= 1;
        map[(round++ % 13) * 5 * PAGE] ^= 1;
    }
    verify_areas(&areas, from, to);
    for (size_t i = 0; i < PAGES - 1; i++)
        verify_fill(map + i * PAGE, PAGE, i % 5 ? i : 1000 + i, i % 5 ? "an unchanged page" : "a changed page");
    verify_fill(map + (PAGES - 1) * PAGE, (PAGE - 100) / 8 * 8, PAGES - 1, "the last page");
    verify_zero(map + PAGES * PAGE - 100, 100, "beyond the end");
    for (size_t i = 0; i < 8; i++)
        verify_fill(later + i * PAGE, PAGE, 16 + i, "mapping with an offset");
    /* What is written to the file now shows in pages that were not changed, and only there. */
    fd = EXPECT(open(path, O_RDWR | O_CLOEXEC));
    write_page(fd, 6, 2006);
    write_page(fd, 10, 2010);
    write_page(fd, 17, 2017);
    verify_fill(map + 6 * PAGE, PAGE, 2006, "an unchanged page after the file changed");
    verify_fill(map + 10 * PAGE, PAGE, 1010, "a changed page after the file changed");
    verify_fill(later + PAGE, PAGE, 2017, "a read-only page after the file changed");
    unlink(path);
    return end();
}
