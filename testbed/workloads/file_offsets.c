/* workload: file_offsets; kind: file; user: any; about: regular files: offsets, flags, append, one description shared by dup and fork, two of one file */
#include "workload.h"

static int fds[9];
static char *path[3];

static void other(void *unused)
{
    (void)unused;
    while (running())
        ;
    /* The parent moves the shared offset before this child is asked to stop. */
    EQUAL(lseek(fds[0], 0, SEEK_CUR), 5000, "offset shared with the parent");
    EQUAL(lseek(fds[0], 6000, SEEK_SET), 6000, "lseek");
    EQUAL(lseek(fds[3], 0, SEEK_CUR), 300, "offset of another description of the same file");
    EQUAL(fcntl(fds[5], F_SETFL, O_APPEND | O_NONBLOCK), 0, "F_SETFL");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < 3; i++)
        path[i] = scratch(i == 0 ? "read" : i == 1 ? "write" : "append");
    char bytes[16 * KIB];
    fill(bytes, sizeof bytes, 1);
    int fd = MUST(open(path[0], O_RDWR | O_CREAT | O_TRUNC, 0640));
    MUST(write(fd, bytes, sizeof bytes));
    close(fd);
    fds[0] = MUST(open(path[0], O_RDONLY));
    fds[1] = MUST(dup(fds[0]));
    fds[2] = MUST(fcntl(fds[0], F_DUPFD_CLOEXEC, 200));
    fds[3] = MUST(open(path[0], O_RDONLY | O_CLOEXEC | O_NOATIME));
    fds[4] = MUST(open(path[1], O_WRONLY | O_CREAT | O_TRUNC | O_DSYNC, 0600));
    fds[5] = MUST(open(path[2], O_WRONLY | O_CREAT | O_APPEND | O_TRUNC, 0600));
    fds[6] = MUST(open(path[2], O_RDWR | O_NONBLOCK));
    fds[7] = MUST(open(path[0], O_RDWR | O_DIRECT));
    fds[8] = MUST(dup2(fds[4], 1000));
    MUST(lseek(fds[0], 1234, SEEK_SET));
    MUST(lseek(fds[3], 300, SEEK_SET));
    MUST(lseek(fds[7], 1 << 30, SEEK_SET)); /* beyond the end */
    char *list = descriptor_list();
    pid_t pid = child(other, NULL);
    uint64_t written = 0, appended = 0;
    ready();
    while (running()) {
        EQUAL(write(fds[4], &written, 8), 8, "write");
        written++;
        EQUAL(write(fds[5], &appended, 8), 8, "append");
        appended++;
    }
    verify_descriptor_list(list);
    EQUAL(lseek(fds[0], 0, SEEK_CUR), 1234, "offset");
    EQUAL(lseek(fds[1], 0, SEEK_CUR), 1234, "offset of a dup");
    char buffer[100];
    EQUAL(read(fds[1], buffer, 100), 100, "read");
    CHECK(memcmp(buffer, bytes + 1234, 100) == 0, "what was read differs");
    EQUAL(lseek(fds[0], 0, SEEK_CUR), 1334, "offset after reading through a dup");
    EQUAL(lseek(fds[2], 0, SEEK_CUR), 1334, "offset of the second dup");
    EQUAL(lseek(fds[3], 0, SEEK_CUR), 300, "offset of a separate description");
    EQUAL(lseek(fds[7], 0, SEEK_CUR), 1 << 30, "offset beyond the end");
    EQUAL(lseek(fds[4], 0, SEEK_CUR), written * 8, "offset of the file written");
    EQUAL(lseek(fds[8], 0, SEEK_CUR), written * 8, "offset of its dup2");
    EQUAL(lseek(fds[6], 0, SEEK_CUR), 0, "offset of the second description of the file appended to");
    struct stat status;
    EXPECT(fstat(fds[5], &status));
    EQUAL(status.st_size, appended * 8, "size of the file appended to");
    EXPECT(fstat(fds[4], &status));
    EQUAL(status.st_size, written * 8, "size of the file written");
    for (uint64_t i = 0; i < appended; i++) {
        uint64_t value = 0;
        if (read(fds[6], &value, 8) != 8 || value != i) {
            fail("entry %llu of the file appended to: %llu", (unsigned long long)i, (unsigned long long)value);
            break;
        }
    }
    EQUAL(lseek(fds[0], 5000, SEEK_SET), 5000, "lseek");
    stop_and_collect(pid);
    EQUAL(lseek(fds[1], 0, SEEK_CUR), 6000, "offset moved by the child");
    CHECK(fcntl(fds[5], F_GETFL) & O_NONBLOCK, "flag set by the child is not seen");
    for (int i = 0; i < 3; i++)
        unlink(path[i]);
    return end();
}
