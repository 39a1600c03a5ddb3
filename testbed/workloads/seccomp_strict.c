/* workload: seccomp_strict; kind: rights; user: any; refusal: allowed; about: a child in seccomp's strict mode, which may only read, write, and exit */
#include "workload.h"
#include <linux/seccomp.h>

static int to_child[2], from_child[2];

static void strict(void *unused)
{
    (void)unused;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
        skip("strict mode: %s", strerror(errno));
    char byte = 0;
    long result = write(from_child[1], "!", 1);
    do {
        result = read(to_child[0], &byte, 1);
        byte++;
        if (result == 1)
            result = write(from_child[1], &byte, 1);
    } while (result == 1 && byte != 'Z');
    syscall(SYS_exit, byte == 'Z' ? 0 : 1);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(pipe(to_child));
    MUST(pipe(from_child));
    pid_t pid = child(strict, NULL);
    char byte = 0;
    EQUAL(read(from_child[0], &byte, 1), 1, "read");
    ready();
    while (running()) {
        EQUAL(write(to_child[1], "A", 1), 1, "write");
        EQUAL(read(from_child[0], &byte, 1), 1, "read");
        EQUAL(byte, 'B', "answer");
    }
    char *path = formatted("/proc/%d/status", pid), *mode = field(path, "Seccomp:");
    verify_text(mode, "1", "seccomp mode of the child");
    EQUAL(write(to_child[1], "Y", 1), 1, "write");
    collect(pid);
    return end();
}
