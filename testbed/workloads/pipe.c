/* workload: pipe; kind: file; user: any; about: pipes with unread bytes, of several sizes, flags and holders, one without writer, one without reader */
#include "workload.h"

#define PIPES 6
static int ends[PIPES][2];

static void other(void *unused)
{
    (void)unused;
    close(ends[3][1]);
    uint64_t expected = 0;
    /* Reads a stream that the parent writes. */
    for (;;) {
        uint64_t value;
        ssize_t got = read(ends[5][0], &value, 8);
        if (got == 0 || (got == 8 && value == UINT64_MAX))
            break;
        if (got != 8 || value != expected++) {
            fail("stream between processes: %zd bytes, %llu, not %llu", got, (unsigned long long)value, (unsigned long long)expected - 1);
            break;
        }
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int sizes[PIPES] = {0, 4096, 1 << 20, 0, 0, 8192};
    size_t fills[PIPES] = {5000, 4096, 700001, 123, 10, 0};
    static char bytes[1 << 20], now[1 << 20];
    for (int i = 0; i < PIPES; i++) {
        MUST(pipe2(ends[i], i == 1 ? O_NONBLOCK : i == 2 ? O_CLOEXEC : 0));
        if (sizes[i])
            MUST(fcntl(ends[i][1], F_SETPIPE_SZ, sizes[i]));
        fill(bytes, fills[i], (uint64_t)i);
        for (size_t done = 0; done < fills[i];) /* in pieces, so that pages are partly full */
            done += (size_t)MUST(write(ends[i][1], bytes + done, fills[i] - done < 3000 ? fills[i] - done : 3000));
    }
    char skipped[100];
    EQUAL(read(ends[0][0], skipped, 100), 100, "read");
    int kept = MUST(dup(ends[0][0]));
    MUST(fcntl(ends[0][0], F_SETFL, O_NONBLOCK)); /* this end only */
    pid_t pid = child(other, NULL);
    MUST(close(ends[3][1])); /* contents, but no writer */
    MUST(close(ends[4][0])); /* the child holds the reader */
    int sizes_before[PIPES], capacity = fcntl(ends[0][1], F_GETPIPE_SZ);
    for (int i = 0; i < PIPES; i++)
        sizes_before[i] = fcntl(ends[i][i == 4 ? 1 : 0], F_GETPIPE_SZ);
    char *list = descriptor_list();
    uint64_t count = 0;
    ready();
    while (running()) {
        EQUAL(write(ends[5][1], &count, 8), 8, "write");
        count++;
    }
    char *list_now = descriptor_list();
    for (int i = 0; i < PIPES; i++)
        EQUAL(fcntl(ends[i][i == 4 ? 1 : 0], F_GETPIPE_SZ), sizes_before[i], "size of a pipe");
    EQUAL(fcntl(kept, F_GETPIPE_SZ), capacity, "size of a pipe");
    EQUAL(fcntl(ends[0][1], F_GETFL) & O_NONBLOCK, 0, "O_NONBLOCK of the writing end");
    EQUAL(fcntl(kept, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "O_NONBLOCK of the reading end's dup");
    /* Names of pipes hold inode numbers, which are new: which are the same matters. */
    for (char *text = list, *c = text; (c = strstr(c, "pipe:["));)
        while (*c && *c != ']')
            *c++ = 'p';
    for (char *text = list_now, *c = text; (c = strstr(c, "pipe:["));)
        while (*c && *c != ']')
            *c++ = 'p';
    verify_text(list_now, list, "descriptors");
    struct stat reading, writing, dup_status;
    for (int i = 0; i < 3; i++) {
        EXPECT(fstat(ends[i][0], &reading));
        EXPECT(fstat(ends[i][1], &writing));
        EQUAL(reading.st_ino, writing.st_ino, "inode of both ends");
    }
    EXPECT(fstat(kept, &dup_status));
    EXPECT(fstat(ends[0][0], &reading));
    EQUAL(dup_status.st_ino, reading.st_ino, "inode of a dup");
    EQUAL(write(ends[1][1], "x", 1), -1, "write to a full pipe");
    EQUAL(errno, EAGAIN, "errno of a write to a full pipe");
    for (int i = 0; i < 4; i++) {
        EXPECT(fcntl(ends[i][0], F_SETFL, O_NONBLOCK)); /* a lost byte is told, not waited for */
        int unread = 0;
        size_t expected = fills[i] - (i == 0 ? 100 : 0);
        EXPECT(ioctl(ends[i][0], FIONREAD, &unread));
        EQUAL(unread, expected, "unread bytes");
        size_t got = 0;
        for (ssize_t n; got < expected && (n = read(ends[i][0], now + got, sizeof now - got)) > 0;)
            got += (size_t)n;
        EQUAL(got, expected, "bytes read");
        fill(bytes, fills[i], (uint64_t)i);
        CHECK(memcmp(now, bytes + fills[i] - expected, expected) == 0, "contents of pipe %d differ", i);
    }
    EQUAL(read(ends[3][0], now, 1), 0, "read of a pipe without writer");
    EQUAL(read(kept, now, 1), -1, "read of an empty pipe");
    EQUAL(write(ends[0][1], "after", 5), 5, "write");
    EQUAL(read(kept, now, 5), 5, "read through a dup");
    count = UINT64_MAX;
    EQUAL(write(ends[5][1], &count, 8), 8, "write");
    collect(pid);
    signal(SIGPIPE, SIG_IGN);
    EQUAL(write(ends[4][1], "x", 1), -1, "write to a pipe without reader");
    EQUAL(errno, EPIPE, "errno of a write to a pipe without reader");
    return end();
}
