/* workload: directories; kind: file; user: any; about: working directory and umask of parent and child */
#include "workload.h"

static void inner(void *argument)
{
    MUST(chdir("/proc/self"));
    char *before = getcwd(NULL, 0);
    umask(0751);
    *(atomic_int *)argument = 1;
    while (running())
        ;
    char *now = getcwd(NULL, 0);
    verify_text(now ? now : "(none)", before, "working directory below /proc");
    EQUAL(umask(0), 0751, "umask of a child");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *directory = scratch("directory");
    MUST(mkdir(directory, 0700));
    MUST(chdir(directory));
    umask(0137);
    atomic_int *up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(inner, up);
    while (!*up)
        sched_yield();
    ready();
    while (running())
        ;
    char *now = getcwd(NULL, 0);
    verify_text(now ? now : "(none)", directory, "working directory");
    int fd = EXPECT(open("made", O_CREAT | O_RDWR | O_CLOEXEC, 0777));
    struct stat status;
    EXPECT(fstat(fd, &status));
    EQUAL(status.st_mode & 0777, 0640, "mode of a new file");
    char *path = formatted("%s/made", directory);
    EQUAL(access(path, F_OK), 0, "a new file in the working directory");
    EQUAL(umask(0), 0137, "umask");
    stop_and_collect(pid);
    unlink(path);
    rmdir(directory);
    return end();
}
