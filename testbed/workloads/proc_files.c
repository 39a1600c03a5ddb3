/* workload: proc_files; kind: file; user: any; about: open files and directories of /proc about the tree's own tasks, and of /sys */
#include "workload.h"

static void idle(void *unused)
{
    (void)unused;
    while (running())
        ;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    pid_t pid = child(idle, NULL);
    char *paths[] = {strdup("/proc/self/status"), strdup("/proc/self/maps"), formatted("/proc/%d/stat", pid),
                     strdup("/proc/self/task"), strdup("/proc/version"), formatted("/proc/%d", pid), strdup("/proc/self/mem"),
                     strdup("/sys/kernel/mm/transparent_hugepage/enabled")};
    int fds[COUNT(paths)];
    for (size_t i = 0; i < COUNT(paths); i++)
        fds[i] = MUST(open(paths[i], O_RDONLY | (i % 2 ? O_CLOEXEC : 0)));
    char version[256], now[256], text[4096];
    ssize_t length = MUST(read(fds[4], version, 10));
    EQUAL(length, 10, "read of /proc/version");
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    memset(text, 0, sizeof text);
    EQUAL(pread(fds[0], text, sizeof text - 1, 0) > 0, 1, "pread of /proc/self/status");
    char *line = strstr(text, "\nPid:");
    EQUAL(line ? atoi(line + 5) : 0, getpid(), "process that /proc/self/status is about");
    memset(text, 0, sizeof text);
    EQUAL(pread(fds[2], text, sizeof text - 1, 0) > 0, 1, "pread of a child's stat");
    EQUAL(atoi(text), pid, "process that a child's stat is about");
    EQUAL(lseek(fds[4], 0, SEEK_CUR), 10, "offset");
    EQUAL(pread(fds[4], now, 10, 0), 10, "pread of /proc/version");
    CHECK(memcmp(now, version, 10) == 0, "/proc/version differs");
    EQUAL(faccessat(fds[5], "stat", R_OK, 0), 0, "a file below an open directory of a child");
    uint64_t value = 0x1234567890abcdef, seen = 0;
    EQUAL(pread(fds[6], &seen, 8, (off_t)(uintptr_t)&value), 8, "read of own memory");
    EQUAL(seen, value, "own memory");
    EQUAL(pread(fds[7], text, 16, 0) > 0, 1, "read of a file of /sys");
    stop_and_collect(pid);
    EQUAL(pread(fds[2], text, 100, 0), -1, "stat of a child that has ended");
    return end();
}
