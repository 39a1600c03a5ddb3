/* workload: root_directory; kind: file; user: root; about: a child with another root directory */
#include "workload.h"

static char *directory;

static void inner(void *argument)
{
    MUST(chroot(directory));
    MUST(chdir("/below"));
    report_path = "/report"; /* its own words stay inside */
    *(atomic_int *)argument = 1;
    while (running())
        ;
    char *now = getcwd(NULL, 0);
    verify_text(now ? now : "(none)", "/below", "working directory");
    EQUAL(access("/below", F_OK), 0, "a directory below the root");
    EQUAL(access("/proc", F_OK), -1, "a directory that is not below the root");
    EQUAL(access("../../../proc", F_OK), -1, "a way out");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    directory = scratch("root");
    char *below = formatted("%s/below", directory), *words = formatted("%s/report", directory);
    MUST(mkdir(directory, 0755));
    MUST(mkdir(below, 0755));
    atomic_int *up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(inner, up);
    while (!*up)
        sched_yield();
    ready();
    while (running())
        ;
    char *path = formatted("/proc/%d/root", pid), *target = link_target(path);
    verify_text(target, directory, "root of the child");
    stop_and_collect(pid);
    char *said = contents(words);
    if (failures && said[0] != '(')
        report(said);
    unlink(words);
    rmdir(below);
    rmdir(directory);
    return end();
}
