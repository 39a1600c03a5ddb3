/* workload: file_replaced; kind: file; user: any; about: open files whose name another file has taken, one removed with its directory, one of /dev/shm made without following links */
#include "mappings.h"

#define SIZE (64 * KIB)

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *path = scratch("data"), *fresh = scratch("fresh"), *directory = scratch("directory"),
         *below = formatted("%s/below", directory), *inside = formatted("%s/file", below);
    char bytes[SIZE];
    int old = MUST(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    fill(bytes, SIZE, 1);
    MUST(write(old, bytes, SIZE));
    char *map = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, old, 0));
    int new = MUST(open(fresh, O_RDWR | O_CREAT | O_TRUNC, 0600));
    MUST(write(new, "the new one", 11));
    MUST(rename(fresh, path));
    MUST(mkdir(directory, 0700));
    MUST(mkdir(below, 0700));
    int gone = MUST(open(inside, O_WRONLY | O_CREAT | O_APPEND, 0600));
    MUST(write(gone, "before ", 7));
    MUST(unlink(inside));
    MUST(rmdir(below));
    MUST(rmdir(directory));
    char *gone_target = descriptor_target(gone);
    char *name = formatted("/workload-replaced-%d", getpid());
    shm_unlink(name);
    int shared = MUST(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
    MUST(ftruncate(shared, SIZE));
    int reader = MUST(shm_open(name, O_RDONLY, 0));
    MUST(shm_unlink(name));
    int shared_flags = fcntl(shared, F_GETFL), reader_flags = fcntl(reader, F_GETFL);
    char *shared_target = descriptor_target(shared);
    MUST(pwrite(shared, "memory", 6, SIZE - 6));
    ready();
    while (running())
        map[7]++;
    uint8_t count = (uint8_t)map[7];
    EQUAL(pread(old, bytes, SIZE, 0), SIZE, "pread");
    EQUAL((uint8_t)bytes[7], count, "what the mapping wrote");
    map[7] = 0;
    char expected[SIZE];
    fill(expected, SIZE, 1);
    expected[7] = 0;
    CHECK(memcmp(map, expected, SIZE) == 0, "the mapping of the old file differs");
    char text[32] = "";
    EQUAL(pread(new, text, 31, 0), 11, "pread");
    verify_text(text, "the new one", "the file that has the name");
    struct stat by_fd, by_name, of_old;
    EXPECT(fstat(new, &by_fd));
    EXPECT(stat(path, &by_name));
    EXPECT(fstat(old, &of_old));
    EQUAL(by_fd.st_ino, by_name.st_ino, "inode by name and by descriptor");
    EQUAL(of_old.st_nlink, 0, "links of the old file");
    EQUAL(of_old.st_mode, S_IFREG | 0640, "mode of the old file");
    EQUAL(write(gone, "after", 5), 5, "write");
    char *now = descriptor_target(gone);
    verify_text(now, gone_target, "name of the file of a removed directory");
    char *own = formatted("/proc/self/fd/%d", gone), *all = contents(own);
    verify_text(all, "before after", "file of a removed directory");
    CHECK(access(directory, F_OK) != 0, "the removed directory is back");
    EQUAL(fcntl(shared, F_GETFL), shared_flags, "flags of a removed file of /dev/shm");
    EQUAL(fcntl(reader, F_GETFL), reader_flags, "flags of its read-only description");
    now = descriptor_target(shared);
    verify_text(now, shared_target, "name of a removed file of /dev/shm");
    EQUAL(pwrite(shared, "M", 1, SIZE - 6), 1, "pwrite");
    memset(text, 0, sizeof text);
    EQUAL(pread(reader, text, 6, SIZE - 6), 6, "pread");
    verify_text(text, "Memory", "contents of a removed file of /dev/shm");
    unlink(path);
    return end();
}
