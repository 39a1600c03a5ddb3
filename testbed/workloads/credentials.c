/* workload: credentials; kind: rights; user: root; about: different real, effective, saved and filesystem ids, groups, capability sets, securebits, per thread */
#include "workload.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>

struct own {
    uid_t users[4];
    gid_t groups[4];
    int count;
    gid_t supplementary[64];
    struct __user_cap_data_struct sets[2];
    uint64_t bounding, ambient;
    int securebits;
};

static atomic_int up, stop;

static struct own read_own(void)
{
    struct own own;
    memset(&own, 0, sizeof own);
    getresuid(&own.users[0], &own.users[1], &own.users[2]);
    getresgid(&own.groups[0], &own.groups[1], &own.groups[2]);
    own.users[3] = (uid_t)syscall(SYS_setfsuid, -1);
    own.groups[3] = (gid_t)syscall(SYS_setfsgid, -1);
    own.count = getgroups(64, own.supplementary);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    if (syscall(SYS_capget, &header, own.sets))
        fail("capget: %s", strerror(errno));
    for (int i = 0; i < 64; i++) {
        own.bounding |= (uint64_t)(prctl(PR_CAPBSET_READ, i) == 1) << i;
        own.ambient |= (uint64_t)(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1) << i;
    }
    own.securebits = prctl(PR_GET_SECUREBITS);
    return own;
}

static void verify_own(const struct own *old, const char *who)
{
    struct own now = read_own();
    static const char *names[] = {"real", "effective", "saved", "filesystem"};
    for (int i = 0; i < 4; i++) {
        CHECK(now.users[i] == old->users[i], "%s: %s user: %u, was %u", who, names[i], now.users[i], old->users[i]);
        CHECK(now.groups[i] == old->groups[i], "%s: %s group: %u, was %u", who, names[i], now.groups[i], old->groups[i]);
    }
    CHECK(now.count == old->count && memcmp(now.supplementary, old->supplementary, sizeof now.supplementary) == 0,
          "%s: supplementary groups differ: %d, were %d", who, now.count, old->count);
    for (int i = 0; i < 2; i++) {
        CHECK(now.sets[i].effective == old->sets[i].effective, "%s: effective capabilities %x, were %x", who, now.sets[i].effective, old->sets[i].effective);
        CHECK(now.sets[i].permitted == old->sets[i].permitted, "%s: permitted capabilities %x, were %x", who, now.sets[i].permitted, old->sets[i].permitted);
        CHECK(now.sets[i].inheritable == old->sets[i].inheritable, "%s: inheritable capabilities %x, were %x", who, now.sets[i].inheritable, old->sets[i].inheritable);
    }
    CHECK(now.bounding == old->bounding, "%s: bounding set %lx, was %lx", who, now.bounding, old->bounding);
    CHECK(now.ambient == old->ambient, "%s: ambient set %lx, was %lx", who, now.ambient, old->ambient);
    EQUAL(now.securebits, old->securebits, "securebits");
}

static void set_capabilities(uint32_t effective, uint32_t permitted, uint32_t inheritable)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{effective, permitted, inheritable}, {0, 0, 0}};
    MUST(syscall(SYS_capset, &header, sets));
}

#define BIT(capability) (1U << (capability))

/* A thread with a part of root's rights. */
static void *partial(void *unused)
{
    (void)unused;
    gid_t groups[] = {7, 1000, 70000};
    MUST(syscall(SYS_setgroups, 3, groups));
    MUST(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS));
    MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
    MUST(syscall(SYS_setresgid, 11, 12, 13));
    MUST(syscall(SYS_setresuid, 21, 22, 23));
    syscall(SYS_setfsuid, 24);
    syscall(SYS_setfsgid, 14);
    set_capabilities(BIT(CAP_CHOWN), BIT(CAP_CHOWN) | BIT(CAP_KILL) | BIT(CAP_NET_RAW), BIT(CAP_KILL) | BIT(CAP_FOWNER));
    MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
    struct own own = read_own();
    up++;
    while (!stop)
        sleep_seconds(0.001);
    verify_own(&own, "thread with a part");
    return NULL;
}

/* A thread that could become root again. */
static void *saved(void *unused)
{
    (void)unused;
    MUST(syscall(SYS_setgroups, 0, NULL));
    MUST(syscall(SYS_setresuid, 1000, 1000, 0));
    struct own own = read_own();
    up++;
    while (!stop)
        sleep_seconds(0.001);
    verify_own(&own, "thread with a saved id");
    EQUAL(syscall(SYS_setresuid, -1, 0, -1), 0, "becoming root again");
    return NULL;
}

/* A process with no rights at all, and locked. */
static void dropped(void *argument)
{
    atomic_int *ready_flag = argument;
    gid_t groups[] = {5, 6};
    MUST(setgroups(2, groups));
    MUST(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED));
    MUST(setresgid(2000, 2000, 2000));
    MUST(setresuid(2000, 2000, 2000));
    struct own own = read_own();
    *ready_flag = 1;
    while (running())
        ;
    verify_own(&own, "process without rights");
    EQUAL(setuid(0), -1, "becoming root");
    EQUAL(kill(getppid(), 0), -1, "signal to a process of root");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    atomic_int *child_ready = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    pid_t pid = child(dropped, child_ready);
    pthread_t threads[2] = {thread(partial, NULL), thread(saved, NULL)};
    while (up < 2 || !*child_ready)
        sched_yield();
    struct own own = read_own();
    ready();
    while (running())
        ;
    verify_own(&own, "root");
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    stop_and_collect(pid);
    return end();
}
