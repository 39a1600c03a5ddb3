/* workload: program_nameless; kind: task; user: any; about: a program whose file was removed, one that runs from a memfd, both with children */
#include "mappings.h"

static char *program_of(const char *path)
{
    char *link = formatted("%s/exe", path), *target = link_target(link);
    free(link);
    return target;
}

/* The part that runs from a file without a name. */
static void work(const char *expected)
{
    static struct area_list areas;
    char *target = program_of("/proc/self");
    verify_text(target, expected, "the program before");
    unsigned long code = (unsigned long)work;
    read_areas(&areas, code, code + 1);
    while (running())
        ;
    verify_areas(&areas, code, code + 1);
    char *now = program_of("/proc/self");
    verify_text(now, expected, "the program");
    int fd = EXPECT(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    struct stat status;
    EXPECT(fstat(fd, &status));
    EQUAL(status.st_nlink, 0, "links of the program file");
    CHECK(status.st_mode & 0100, "the program file may not be executed any more: mode %o", status.st_mode);
    char magic[4] = "";
    EQUAL(pread(fd, magic, 4, 0), 4, "pread of the program file");
    CHECK(memcmp(magic, "\177ELF", 4) == 0, "the program file is no program any more");
    close(fd);
    EQUAL(open("/proc/self/exe", O_RDWR | O_CLOEXEC), -1, "opening a running program for writing");
    _exit(failures ? 1 : 0);
}

static void copy(int to)
{
    int from = MUST(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    char buffer[64 * KIB];
    for (ssize_t got; (got = MUST(read(from, buffer, sizeof buffer))) > 0;)
        MUST(write(to, buffer, (size_t)got));
    close(from);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (argc > 2) {
        if (argv[2][0] == '/' && strncmp(argv[2], "/memfd:", 7) != 0)
            unlink(argv[3]);
        work(argv[2]);
    }
    char *path = scratch("program"), *expected[2] = {formatted("%s (deleted)", path), strdup("/memfd:a program (deleted)")};
    int file = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700));
    copy(file);
    close(file);
    int memory = MUST(memfd_create("a program", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    copy(memory);
    pid_t pids[2];
    for (int i = 0; i < 2; i++)
        if ((pids[i] = MUST(fork())) == 0) {
            char *arguments[] = {argv[0], argv[1], expected[i], path, NULL}, *none[] = {NULL};
            if (i == 0) {
                close(memory);
                execve(path, arguments, none);
            } else {
                char *own = formatted("/proc/self/fd/%d", memory);
                int reader = open(own, O_RDONLY | O_CLOEXEC);
                close(memory);
                fexecve(reader, arguments, none);
            }
            die("exec: %s", strerror(errno));
        }
    close(memory);
    for (int i = 0; i < 2; i++)
        for (int tries = 0;; tries++) {
            char *target = program_of(formatted("/proc/%d", pids[i]));
            if (strcmp(target, expected[i]) == 0)
                break;
            if (tries > 1000)
                die("child %d runs %s instead of %s", pids[i], target, expected[i]);
            sleep_seconds(0.002);
        }
    ready();
    while (running())
        ;
    for (int i = 0; i < 2; i++) {
        char *target = program_of(formatted("/proc/%d", pids[i]));
        verify_text(target, expected[i], "the program of a child");
        stop_and_collect(pids[i]);
    }
    return end();
}
