/* workload: descriptors_1000; kind: file; user: any; about: 1,000 descriptors of several kinds */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 1100)
        skip("only %lu descriptors allowed", (unsigned long)limit.rlim_cur);
    char *path = scratch("file");
    static int fds[1000];
    for (int i = 0; i < 1000;) {
        if (i % 4 == 0) {
            int pair[2];
            MUST(pipe(pair));
            MUST(write(pair[1], &i, sizeof i));
            fds[i++] = pair[0];
            fds[i++] = pair[1];
        } else if (i % 8 == 2) {
            fds[i] = MUST(eventfd((unsigned)i, 0));
            i++;
        } else {
            fds[i] = MUST(open(path, O_RDWR | O_CREAT, 0600));
            MUST(lseek(fds[i], i * 10, SEEK_SET));
            i++;
        }
    }
    ready();
    while (running())
        ;
    for (int i = 0; i < 1000;) {
        if (i % 4 == 0) {
            int value = -1;
            EQUAL(read(fds[i], &value, sizeof value), sizeof value, "read of a pipe");
            EQUAL(value, i, "contents of a pipe");
            EQUAL(write(fds[i + 1], "x", 1), 1, "write to a pipe");
            EQUAL(read(fds[i], &value, 1), 1, "read of a pipe");
            i += 2;
        } else if (i % 8 == 2) {
            uint64_t value = 0;
            EQUAL(read(fds[i], &value, 8), 8, "read of an eventfd");
            EQUAL(value, i, "count of an eventfd");
            i++;
        } else {
            EQUAL(lseek(fds[i], 0, SEEK_CUR), i * 10, "offset");
            i++;
        }
    }
    unlink(path);
    return end();
}
