/* workload: landlock; kind: rights; user: any; refusal: allowed; about: a sandbox that allows writing below one directory only, of a child */
#include "workload.h"
#include <linux/landlock.h>

static char *directory, *inside, *outside;

static void sandboxed(void *argument)
{
    struct landlock_ruleset_attr attributes = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE};
    int set = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (set < 0)
        skip("landlock: %s", strerror(errno));
    struct landlock_path_beneath_attr beneath = {.allowed_access = attributes.handled_access_fs,
                                                 .parent_fd = MUST(open(directory, O_PATH | O_CLOEXEC))};
    MUST(syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(syscall(SYS_landlock_restrict_self, set, 0));
    close(beneath.parent_fd);
    close(set);
    *(atomic_int *)argument = 1;
    while (running())
        ;
    EQUAL(open(outside, O_CREAT | O_RDWR | O_CLOEXEC, 0600), -1, "making a file outside the sandbox");
    int fd = EXPECT(open(inside, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    close(fd);
    EQUAL(unlink(inside), 0, "removing a file inside the sandbox");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    directory = scratch("directory");
    inside = formatted("%s/inside", directory);
    outside = scratch("outside");
    MUST(mkdir(directory, 0700));
    atomic_int *up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(sandboxed, up);
    int status;
    while (!*up)
        if (waitpid(pid, &status, WNOHANG) == pid)
            _exit(77); /* it said why */
    ready();
    while (running())
        ;
    stop_and_collect(pid);
    EQUAL(access(outside, F_OK), -1, "a file outside the sandbox is there");
    rmdir(directory);
    return end();
}
