/* workload: unlinked_file; kind: file; user: any; about: open files without a name: small, sparse, 3 MiB, read-only and writable descriptions, shared with a child */
#include "workload.h"

static int small, large, reader;

static void other(void *unused)
{
    (void)unused;
    while (running())
        ;
    EQUAL(pwrite(large, "from the child", 14, 64), 14, "pwrite");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *path[2] = {scratch("small"), scratch("large")};
    small = MUST(open(path[0], O_RDWR | O_CREAT | O_TRUNC, 0604));
    large = MUST(open(path[1], O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600));
    MUST(write(small, "small contents", 14));
    char *bytes = malloc(3 * MIB);
    fill(bytes, 3 * MIB, 3);
    MUST(write(large, bytes, 3 * MIB));
    MUST(ftruncate(large, 100 * MIB)); /* the rest is a hole */
    reader = MUST(open(path[1], O_RDONLY));
    MUST(lseek(reader, 777, SEEK_SET));
    MUST(lseek(small, 6, SEEK_SET));
    struct stat before, now;
    MUST(fstat(large, &before));
    MUST(unlink(path[0]));
    MUST(unlink(path[1]));
    pid_t pid = child(other, NULL);
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    char text[32] = "";
    EQUAL(lseek(small, 0, SEEK_CUR), 6, "offset");
    EQUAL(read(small, text, 31), 8, "read");
    verify_text(text, "contents", "contents");
    EXPECT(fstat(small, &now));
    EQUAL(now.st_mode, S_IFREG | 0604, "mode");
    EQUAL(now.st_nlink, 0, "links");
    EQUAL(now.st_uid, getuid(), "owner");
    EXPECT(fstat(large, &now));
    EQUAL(now.st_size, before.st_size, "size");
    EQUAL(now.st_mtim.tv_sec, before.st_mtim.tv_sec, "time of the last change");
    CHECK(now.st_blocks <= before.st_blocks + 16, "the hole is filled: %ld blocks, were %ld", now.st_blocks, before.st_blocks);
    char *read_back = malloc(3 * MIB);
    EQUAL(lseek(reader, 0, SEEK_CUR), 777, "offset of the read-only description");
    EQUAL(pread(reader, read_back, 3 * MIB, 0), 3 * MIB, "pread");
    CHECK(memcmp(bytes, read_back, 3 * MIB) == 0, "contents of the large file differ");
    EQUAL(pread(reader, read_back, MIB, 60 * MIB), MIB, "pread of the hole");
    verify_zero(read_back, MIB, "hole");
    EQUAL(write(reader, "x", 1), -1, "write to a read-only description");
    /* One file, two descriptions, two processes. */
    EQUAL(pwrite(small, "S", 1, 0), 1, "pwrite");
    stop_and_collect(pid);
    EQUAL(now.st_ino == 0, 0, "inode");
    /* O_APPEND: pwrite of the child went to the end. */
    EQUAL(pread(reader, text, 14, 100 * MIB), 14, "what the child wrote");
    CHECK(memcmp(text, "from the child", 14) == 0, "what the child wrote differs");
    EQUAL(access(path[0], F_OK) == 0 || access(path[1], F_OK) == 0, 0, "a name is back");
    return end();
}
