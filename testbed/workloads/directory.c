/* workload: directory; kind: file; user: any; about: directories: one read half-way, one only held, openat from them */
#include "workload.h"
#include <dirent.h>

#define FILES 500

static int compare(const void *one, const void *other) { return *(const int *)one - *(const int *)other; }

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *path = scratch("directory");
    MUST(mkdir(path, 0750));
    int held = MUST(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (int i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", i);
        close(MUST(openat(held, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)));
    }
    int fd = MUST(open(path, O_RDONLY | O_DIRECTORY));
    static int seen[2 * FILES];
    int count = 0;
    char buffer[512] __attribute__((aligned(8)));
    long got = 0;
    bool waited = false;
    while ((got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < got;) {
            struct dirent64 *entry = (struct dirent64 *)(buffer + at);
            int number;
            if (sscanf(entry->d_name, "file-%d", &number) == 1 && count < 2 * FILES)
                seen[count++] = number;
            at += entry->d_reclen;
        }
        if (count > FILES / 3 && !waited) {
            char *list = descriptor_list();
            off_t position = lseek(fd, 0, SEEK_CUR);
            ready();
            while (running())
                ;
            waited = true;
            verify_descriptor_list(list);
            EQUAL(lseek(fd, 0, SEEK_CUR), position, "position in the directory");
        }
    }
    EQUAL(count, FILES, "entries read");
    qsort(seen, (size_t)count, sizeof *seen, compare);
    for (int i = 0; i < count && i < FILES; i++)
        EQUAL(seen[i], i, "entry");
    EQUAL(faccessat(held, "file-7", F_OK, 0), 0, "a file seen from the held directory");
    for (int i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", i);
        EXPECT(unlinkat(held, name, 0));
    }
    rmdir(path);
    return end();
}
