/* workload: tmpfile; kind: file; user: any; about: a file made without a name (O_TMPFILE), which may be given one after the move */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *directory = scratch("directory"), *path = formatted("%s/name", directory);
    umask(022);
    MUST(mkdir(directory, 0700));
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0620);
    if (fd < 0)
        skip("O_TMPFILE: %s", strerror(errno));
    int exclusive = MUST(open(directory, O_TMPFILE | O_EXCL | O_RDWR, 0600));
    char bytes[100 * KIB], now[sizeof bytes];
    fill(bytes, sizeof bytes, 1);
    MUST(write(fd, bytes, sizeof bytes));
    MUST(write(exclusive, bytes, 100));
    MUST(lseek(fd, 11, SEEK_SET));
    ready();
    while (running())
        ;
    EQUAL(lseek(fd, 0, SEEK_CUR), 11, "offset");
    EQUAL(pread(fd, now, sizeof now, 0), sizeof now, "pread");
    CHECK(memcmp(now, bytes, sizeof now) == 0, "contents differ");
    EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC, "descriptor flags");
    struct stat status;
    EXPECT(fstat(fd, &status));
    EQUAL(status.st_nlink, 0, "links");
    EQUAL(status.st_mode & 07777, 0620 & ~022, "mode");
    char *own = formatted("/proc/self/fd/%d", fd);
    EQUAL(linkat(AT_FDCWD, own, AT_FDCWD, path, AT_SYMLINK_FOLLOW), 0, "giving it a name");
    struct stat named;
    EXPECT(stat(path, &named));
    EXPECT(fstat(fd, &status));
    EQUAL(named.st_ino, status.st_ino, "inode by name and by descriptor");
    unlink(path);
    /* Whether O_EXCL forbids a name cannot be seen from outside, nor set later: one made anew may be given one. */
    EQUAL(pread(exclusive, now, 200, 0), 100, "pread");
    rmdir(directory);
    return end();
}
