/* workload: file_table_shared; kind: file; user: any; about: processes that share one file table (CLONE_FILES), or only directory and umask (CLONE_FS) */
#include "workload.h"

static atomic_int *number;
static char stacks[2][64 * KIB] __attribute__((aligned(16)));

static int share_files(void *unused)
{
    (void)unused;
    int ends[2];
    failures = 0;
    MUST(pipe(ends)); /* the parent sees them */
    number[0] = ends[0];
    number[1] = ends[1];
    number[2] = 1;
    while (running())
        ;
    /* The parent has opened one since, which is here, too. */
    EQUAL(fcntl(number[3], F_GETFD), 0, "descriptor opened by the parent");
    EQUAL(write(ends[1], "from the child", 14), 14, "write");
    close(number[3]);
    _exit(failures ? 1 : 0);
}

static int share_directory(void *unused)
{
    (void)unused;
    failures = 0;
    MUST(chdir("/proc"));
    umask(0123);
    number[4] = 1;
    while (running())
        ;
    MUST(chdir("/usr"));
    umask(0345);
    _exit(failures ? 1 : 0);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    number = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t files = MUST(clone(share_files, stacks[0] + sizeof stacks[0], CLONE_FILES | SIGCHLD, NULL));
    pid_t directory = MUST(clone(share_directory, stacks[1] + sizeof stacks[1], CLONE_FS | SIGCHLD, NULL));
    while (!number[2] || !number[4])
        sched_yield();
    EQUAL(fcntl(number[0], F_GETFD), 0, "descriptor opened by the child");
    ready();
    while (running())
        ;
    EQUAL(fcntl(number[0], F_GETFD), 0, "descriptor opened by the child");
    char *now = getcwd(NULL, 0);
    verify_text(now, "/proc", "directory set by a child");
    number[3] = EXPECT(open("/dev/zero", O_RDONLY));
    stop_and_collect(files);
    char text[16] = "";
    EQUAL(fcntl(number[3], F_GETFD), -1, "descriptor closed by the child");
    EQUAL(read(number[0], text, 15), 14, "read");
    verify_text(text, "from the child", "what the child wrote");
    stop_and_collect(directory);
    now = getcwd(NULL, 0);
    verify_text(now, "/usr", "directory set by a child after the move");
    EQUAL(umask(0), 0345, "umask set by a child after the move");
    return end();
}
