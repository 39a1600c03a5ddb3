/* workload: seccomp; kind: rights; user: any; about: seccomp filters: two on one thread, one on a child that it kills, none on the first thread */
#include "workload.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

static atomic_int up, stop;

/* A filter that answers one system call with an error, or ends the process. */
static void install(unsigned number, unsigned answer)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {COUNT(code), code};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void verify_filters(const char *expected, const char *who)
{
    char *path = formatted("/proc/self/task/%d/status", gettid()), *filters = field(path, "Seccomp_filters");
    verify_text(filters, expected, who);
    free(path), free(filters);
}

static void *filtered(void *unused)
{
    (void)unused;
    install(SYS_getppid, SECCOMP_RET_ERRNO | 77);
    install(SYS_getsid, SECCOMP_RET_ERRNO | 78);
    up = 1;
    while (!stop) {
        EQUAL(syscall(SYS_getppid), -1, "a filtered call");
        sleep_seconds(0.001);
    }
    EQUAL(syscall(SYS_getppid), -1, "a filtered call");
    EQUAL(errno, 77, "errno of a filtered call");
    EQUAL(syscall(SYS_getsid, 0), -1, "a call filtered by the second");
    EQUAL(errno, 78, "errno of a call filtered by the second");
    EQUAL(syscall(SYS_getpgid, 0) > 0, 1, "a call that is not filtered");
    verify_filters("2", "filters of a thread");
    return NULL;
}

static void killed(void *argument)
{
    install(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    *(atomic_int *)argument = 1;
    while (running())
        ;
    syscall(SYS_getppid);
    fail("a call that ends the process came back");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    atomic_int *child_up = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(killed, child_up);
    pthread_t other = thread(filtered, NULL);
    while (!up || !*child_up)
        sched_yield();
    ready();
    while (running())
        ;
    verify_filters("0", "filters of the first thread");
    stop = 1;
    pthread_join(other, NULL);
    int status = 0;
    EXPECT(kill(pid, SIGTERM));
    EQUAL(waitpid(pid, &status, 0), pid, "waitpid");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "status of a child that broke its filter: 0x%x", status);
    return end();
}
