/* workload: tmpfs_file; kind: file; user: any; about: files in /tmp of the host's own: open, mapped, with a name that has to lead to it */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    char directory[] = "/tmp/workload-XXXXXX";
    MUST(mkdtemp(directory) ? 0 : -1);
    char *path = formatted("%s/file", directory);
    int fd = MUST(open(path, O_RDWR | O_CREAT, 0640)), reader = MUST(open(path, O_RDONLY | O_CLOEXEC));
    char bytes[300 * KIB], now[sizeof bytes];
    fill(bytes, sizeof bytes, 1);
    MUST(write(fd, bytes, sizeof bytes));
    char *map = MUST(mmap(NULL, sizeof bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    MUST(lseek(reader, 4242, SEEK_SET));
    ready();
    while (running()) {
        map[100] ^= 1;
        map[100] ^= 1;
    }
    EQUAL(lseek(reader, 0, SEEK_CUR), 4242, "offset");
    EQUAL(lseek(fd, 0, SEEK_CUR), sizeof bytes, "offset");
    EQUAL(pread(reader, now, sizeof now, 0), sizeof now, "pread");
    CHECK(memcmp(now, bytes, sizeof now) == 0, "contents differ");
    CHECK(memcmp(map, bytes, sizeof now) == 0, "mapped contents differ");
    map[200] = 'x';
    EQUAL(pread(reader, now, 1, 200), 1, "pread");
    EQUAL(now[0], 'x', "what was written by the mapping");
    struct stat by_fd, by_name;
    EXPECT(fstat(reader, &by_fd));
    EQUAL(stat(path, &by_name), 0, "stat by name");
    EQUAL(by_name.st_ino, by_fd.st_ino, "inode by name and by descriptor");
    EQUAL(by_name.st_dev, by_fd.st_dev, "device by name and by descriptor");
    EQUAL(by_fd.st_mode, S_IFREG | 0640, "mode");
    EQUAL(by_fd.st_uid, getuid(), "owner");
    EQUAL(unlink(path), 0, "unlink");
    EQUAL(rmdir(directory), 0, "rmdir");
    return end();
}
