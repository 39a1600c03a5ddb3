/* workload: memfd_seals; kind: file; user: any; about: memfds with seals, sizes, holes, access modes; one that may run code */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    int seals[] = {0, F_SEAL_WRITE, F_SEAL_SHRINK | F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_FUTURE_WRITE, F_SEAL_WRITE | F_SEAL_SEAL | F_SEAL_GROW};
    int fds[COUNT(seals)], readers[COUNT(seals)];
    char bytes[3 * PAGE], now[3 * PAGE];
    for (size_t i = 0; i < COUNT(seals); i++) {
        char *name = formatted("sealed %zu", i);
        fds[i] = MUST(memfd_create(name, MFD_ALLOW_SEALING | (i % 2 ? MFD_CLOEXEC : 0)));
        fill(bytes, sizeof bytes, i);
        MUST(pwrite(fds[i], bytes, sizeof bytes, (off_t)(i * 5 * MIB)));
        MUST(fcntl(fds[i], F_ADD_SEALS, seals[i]));
        char *path = formatted("/proc/self/fd/%d", fds[i]);
        readers[i] = MUST(open(path, O_RDONLY | O_CLOEXEC));
        MUST(lseek(fds[i], (off_t)i * 100, SEEK_SET));
        free(name), free(path);
    }
    int unsealable = MUST(memfd_create("unsealable", 0));
    char *list = descriptor_list();
    struct stat before[COUNT(seals)], status;
    for (size_t i = 0; i < COUNT(seals); i++)
        MUST(fstat(fds[i], &before[i]));
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    EQUAL(fcntl(unsealable, F_GET_SEALS), F_SEAL_SEAL, "seals of a memfd that may not be sealed");
    for (size_t i = 0; i < COUNT(seals); i++) {
        EQUAL(fcntl(fds[i], F_GET_SEALS), seals[i], "seals");
        EQUAL(fcntl(readers[i], F_GET_SEALS), seals[i], "seals");
        EXPECT(fstat(readers[i], &status));
        EQUAL(status.st_size, before[i].st_size, "size");
        EQUAL(status.st_mode, before[i].st_mode, "mode");
        CHECK(status.st_blocks <= before[i].st_blocks + 8, "the hole is filled: %ld blocks", status.st_blocks);
        EQUAL(lseek(fds[i], 0, SEEK_CUR), i * 100, "offset");
        EQUAL(pread(readers[i], now, sizeof now, (off_t)(i * 5 * MIB)), sizeof now, "pread");
        verify_fill(now, sizeof now, i, "contents");
        bool no_write = seals[i] & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
        EQUAL(pwrite(fds[i], now, 1, (off_t)(i * 5 * MIB)), no_write ? -1 : 1, "pwrite");
        EQUAL(ftruncate(fds[i], 200 * MIB), seals[i] & F_SEAL_GROW ? -1 : 0, "growing");
        EQUAL(write(readers[i], now, 1), -1, "write to a read-only description");
    }
    return end();
}
