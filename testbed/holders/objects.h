/* The objects that a holder can hold: one function each, and one line in the table at the end. */
#ifndef OBJECTS_H
#define OBJECTS_H
#include <arpa/inet.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/fanotify.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/mempolicy.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <pty.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>

/* A call without which there is nothing to hold here: its failure skips the object. */
#define NEED(call)                                                                                 \
    ({                                                                                             \
        __typeof__(call) result_ = (call);                                                         \
        if ((long)result_ == -1L)                                                                  \
            skip("%s: %s", #call, strerror(errno));                                                \
        result_;                                                                                   \
    })

/* What follows is done by a child, in whose report this process stands as its number's owner; this one stays outside and
 * keeps what it has until the child ends. */
static void leave_outside(void)
{
    pid_t pid = MUST(fork());
    if (pid == 0)
        return;
    waitpid(pid, NULL, 0);
    _exit(0);
}

/* The tree is this child alone. */
static void say_number(pid_t pid)
{
    char *line = formatted("PROCESS %d\n", pid);
    report(line);
    free(line);
}

static void child_is_the_tree(void)
{
    leave_outside();
    say_number(getpid());
}

/* Objects that live in the kernel only. */

/* Threads that are made later block it as well, so that it waits for the process. */
static void hold_blocked_continuation(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCONT);
    MUST(sigprocmask(SIG_BLOCK, &set, NULL));
    MUST(kill(getpid(), SIGCONT));
}

static void hold_io_uring(void)
{
    struct io_uring_params parameters = {0};
    NEED(syscall(SYS_io_uring_setup, 4, &parameters));
}

static void hold_perf_event(void)
{
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_TASK_CLOCK};
    NEED(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
}

static void hold_bpf(void)
{
    union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
    NEED(syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes));
}

static void hold_userfaultfd(void)
{
    int fd = (int)NEED(syscall(SYS_userfaultfd, O_CLOEXEC));
    struct uffdio_api api = {.api = UFFD_API};
    MUST(ioctl(fd, UFFDIO_API, &api));
}

/* Registered memory whose descriptor somebody outside holds. */
static void hold_userfaultfd_memory(void)
{
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    child_is_the_tree();
    int fd = (int)NEED(syscall(SYS_userfaultfd, O_CLOEXEC));
    struct uffdio_api api = {.api = UFFD_API};
    MUST(ioctl(fd, UFFDIO_API, &api));
    void *memory = MUST(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    struct uffdio_register range = {.range = {(uintptr_t)memory, 16 * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    MUST(ioctl(fd, UFFDIO_REGISTER, &range));
    char space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    MUST(sendmsg(pair[1], &message, 0));
    close(fd);
    close(pair[0]);
    close(pair[1]);
}

static void hold_fanotify(void) { NEED(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY)); }

static void hold_landlock_ruleset(void)
{
    struct landlock_ruleset_attr attributes = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_REG};
    NEED(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0));
}

static void hold_landlock_domain(void)
{
    struct landlock_ruleset_attr attributes = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_SOCK};
    int set = (int)NEED(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(syscall(SYS_landlock_restrict_self, set, 0));
    close(set);
}

static int seccomp_listener(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgrp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT(filter), filter};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    return (int)NEED(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

static void hold_seccomp_notifier(void) { seccomp_listener(); }

/* The notifier is closed here: whoever supervises is somebody else. */
static void hold_seccomp_supervised(void) { close(seccomp_listener()); }

static void hold_kvm(void) { NEED(open("/dev/kvm", O_RDWR | O_CLOEXEC)); }

static void hold_kvm_machine(void)
{
    int kvm = NEED(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    NEED(ioctl(kvm, _IO(0xAE, 1), 0));
    close(kvm);
}

static void hold_mount_context(void) { NEED(syscall(SYS_fsopen, "tmpfs", 0)); }

static void hold_detached_mount(void)
{
    int context = (int)NEED(syscall(SYS_fsopen, "tmpfs", 0));
    NEED(syscall(SYS_fsconfig, context, 6 /* CREATE */, NULL, NULL, 0));
    NEED(syscall(SYS_fsmount, context, 0, 0));
    close(context);
}

static void hold_secret_memory(void)
{
    int fd = (int)NEED(syscall(447 /* memfd_secret */, 0));
    MUST(ftruncate(fd, PAGE));
}

static void hold_secret_mapping(void)
{
    int fd = (int)NEED(syscall(447 /* memfd_secret */, 0));
    MUST(ftruncate(fd, PAGE));
    char *memory = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    *memory = 1;
    close(fd);
}

static void hold_aio(void)
{
    aio_context_t context = 0;
    NEED(syscall(SYS_io_setup, 4, &context));
}

static void hold_namespace(const char *name)
{
    char *path = formatted("/proc/self/ns/%s", name);
    NEED(open(path, O_RDONLY | O_CLOEXEC));
    free(path);
}
static void hold_namespace_net(void) { hold_namespace("net"); }
static void hold_namespace_mnt(void) { hold_namespace("mnt"); }
static void hold_namespace_pid(void) { hold_namespace("pid"); }
static void hold_namespace_user(void) { hold_namespace("user"); }
static void hold_namespace_uts(void) { hold_namespace("uts"); }
static void hold_namespace_ipc(void) { hold_namespace("ipc"); }
static void hold_namespace_cgroup(void) { hold_namespace("cgroup"); }
static void hold_namespace_time(void) { hold_namespace("time"); }

/* Devices. */

static void hold_device(mode_t sort, unsigned major, unsigned minor, int flags)
{
    char *path = scratch("device");
    NEED(mknod(path, sort | 0600, makedev(major, minor)));
    NEED(open(path, flags | O_CLOEXEC | O_NONBLOCK));
}
static void hold_tun(void) { hold_device(S_IFCHR, 10, 200, O_RDWR); }
static void hold_fuse(void) { hold_device(S_IFCHR, 10, 229, O_RDWR); }
static void hold_loop_control(void) { hold_device(S_IFCHR, 10, 237, O_RDWR); }
static void hold_kernel_log(void) { hold_device(S_IFCHR, 1, 11, O_RDONLY); }
static void hold_physical_memory(void) { hold_device(S_IFCHR, 1, 1, O_RDONLY); }
static void hold_ports(void) { hold_device(S_IFCHR, 1, 4, O_RDONLY); }
static void hold_registers_of_processor(void) { hold_device(S_IFCHR, 202, 0, O_RDONLY); }
static void hold_vsock_device(void) { hold_device(S_IFCHR, 10, 258, O_RDONLY); }
static void hold_disk(void)
{
    static const unsigned majors[] = {254, 253, 252, 259, 8, 7};
    char *path = scratch("device");
    for (size_t i = 0; i < COUNT(majors); i++) {
        MUST(mknod(path, S_IFBLK | 0600, makedev(majors[i], 0)));
        if (open(path, O_RDONLY | O_CLOEXEC) >= 0)
            return;
        unlink(path);
    }
    skip("no disk that can be opened");
}
static void hold_console(void) { hold_device(S_IFCHR, 5, 1, O_RDWR | O_NOCTTY); }

/* Sockets of the wider world. */

static int bound(int family, int type, int protocol)
{
    int fd = NEED(socket(family, type | SOCK_CLOEXEC, protocol));
    struct sockaddr_storage address = {.ss_family = (sa_family_t)family};
    if (family == AF_INET)
        ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        ((struct sockaddr_in6 *)&address)->sin6_addr = in6addr_loopback;
    NEED(bind(fd, (struct sockaddr *)&address, family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)));
    return fd;
}

static int listening(int family)
{
    int fd = bound(family, SOCK_STREAM, 0);
    MUST(listen(fd, 5));
    return fd;
}

static int connected_to(int listener)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    MUST(getsockname(listener, (struct sockaddr *)&address, &length));
    int fd = MUST(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    MUST(connect(fd, (struct sockaddr *)&address, length));
    return fd;
}

static void hold_tcp_fresh(void) { MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
static void hold_tcp_listening(void) { listening(AF_INET); }
static void hold_tcp_listening_6(void) { listening(AF_INET6); }
static void hold_tcp_connected(void)
{
    int listener = listening(AF_INET);
    connected_to(listener);
    MUST(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    close(listener);
}
static void hold_tcp_outside(void)
{
    int listener = listening(AF_INET), client = connected_to(listener);
    child_is_the_tree();
    close(listener);
    (void)client;
}
static void hold_udp(void) { bound(AF_INET, SOCK_DGRAM, 0); }
static void hold_udp_6(void) { bound(AF_INET6, SOCK_DGRAM, 0); }
static void hold_mptcp(void) { bound(AF_INET, SOCK_STREAM, 262); }
static void hold_raw(void) { NEED(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP)); }
static void hold_packet(void) { NEED(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))); }
static void hold_netlink(void) { NEED(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)); }
static void hold_vsock(void) { NEED(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0)); }
static void hold_xdp(void) { NEED(socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)); }
static void hold_alg(void) { NEED(socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)); }
static void hold_tcp_in_flight(void)
{
    int pair[2], fd = listening(AF_INET);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    char space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    MUST(sendmsg(pair[0], &message, 0));
    close(fd);
}

/* Edges: the other side is outside. */

static void hold_pipe_outside(void)
{
    int ends[2];
    MUST(pipe(ends));
    child_is_the_tree();
    close(ends[0]);
}
static void hold_pipe_reader_outside(void)
{
    int ends[2];
    MUST(pipe(ends));
    child_is_the_tree();
    close(ends[1]);
}
static void hold_fifo_outside(void)
{
    char *path = scratch("fifo");
    MUST(mkfifo(path, 0600));
    int fd = MUST(open(path, O_RDWR));
    child_is_the_tree();
    close(fd);
    MUST(open(path, O_WRONLY | O_CLOEXEC));
}
static void hold_unix_outside(void)
{
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    child_is_the_tree();
    close(pair[0]);
}
static void hold_unix_client_outside(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "holder-%d", getpid());
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    int listener = MUST(socket(AF_UNIX, SOCK_STREAM, 0)), client;
    MUST(bind(listener, (struct sockaddr *)&address, size));
    MUST(listen(listener, 5));
    MUST(client = socket(AF_UNIX, SOCK_STREAM, 0));
    MUST(connect(client, (struct sockaddr *)&address, size));
    child_is_the_tree();
    close(client);
    MUST(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
}
static void hold_terminal_outside(void)
{
    int master, slave;
    NEED(openpty(&master, &slave, NULL, NULL, NULL));
    child_is_the_tree();
    close(master);
}
static void hold_terminal_master_outside(void)
{
    int master, slave;
    NEED(openpty(&master, &slave, NULL, NULL, NULL));
    child_is_the_tree();
    close(slave);
}
static void hold_pidfd_outside(void)
{
    pid_t outside = getpid();
    child_is_the_tree();
    NEED(syscall(SYS_pidfd_open, outside, 0));
}
static void hold_memory_file_outside(void)
{
    int fd = MUST(memfd_create("shared", 0));
    MUST(ftruncate(fd, PAGE));
    child_is_the_tree();
}
static void hold_shared_memory_outside(void)
{
    char *memory = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    child_is_the_tree();
    *memory = 1;
}
static void hold_unlinked_outside(void)
{
    char *path = scratch("unlinked");
    MUST(open(path, O_RDWR | O_CREAT, 0600));
    MUST(unlink(path));
    child_is_the_tree();
}
static void hold_sysv_memory_outside(void)
{
    int id = MUST(shmget(IPC_PRIVATE, PAGE, 0600 | IPC_CREAT));
    char *memory = MUST(shmat(id, NULL, 0));
    MUST(shmctl(id, IPC_RMID, NULL));
    child_is_the_tree();
    *memory = 1;
}
static void hold_queue_outside(void)
{
    char *name = formatted("/holder-%d", getpid());
    NEED(mq_open(name, O_RDWR | O_CREAT, 0600, NULL));
    mq_unlink(name);
    child_is_the_tree();
}
static void hold_owner_outside(void)
{
    pid_t outside = getpid();
    child_is_the_tree();
    int ends[2];
    MUST(pipe2(ends, O_CLOEXEC));
    MUST(fcntl(ends[0], F_SETOWN, outside));
}
static void hold_proc_outside(void)
{
    char *path = formatted("/proc/%d/status", getpid());
    child_is_the_tree();
    MUST(open(path, O_RDONLY | O_CLOEXEC));
}
static void hold_epoll_member_outside(void)
{
    int ends[2], epoll = MUST(epoll_create1(0));
    MUST(pipe(ends));
    child_is_the_tree();
    struct epoll_event event = {.events = EPOLLIN};
    MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    close(ends[0]);
    close(ends[1]);
}

/* Files. */

static void hold_lease(void)
{
    int fd = MUST(open(scratch("leased"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    NEED(fcntl(fd, F_SETLEASE, F_RDLCK));
}
static void hold_directory_notification(void)
{
    int fd = MUST(open("/var/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    signal(SIGIO, SIG_IGN);
    NEED(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
}
static void hold_removed_directory(void)
{
    char *path = scratch("removed");
    MUST(mkdir(path, 0700));
    MUST(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    MUST(rmdir(path));
}
static void hold_removed_working_directory(void)
{
    char *path = scratch("removed");
    MUST(mkdir(path, 0700));
    MUST(chdir(path));
    MUST(rmdir(path));
}
static void hold_hidden_name(void)
{
    char *path = scratch("linked"), *other = scratch("another");
    MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    MUST(link(path, other));
    MUST(unlink(path));
}
static void hold_replaced_handle(void)
{
    char *path = scratch("handle");
    MUST(mkdir(path, 0700));
    MUST(open(path, O_PATH | O_CLOEXEC));
    MUST(rename(path, scratch("handle.moved")));
    MUST(rmdir(scratch("handle.moved")));
}
static void hold_name_not_text(void) { MUST(open(scratch("\377\376"), O_RDWR | O_CREAT | O_CLOEXEC, 0600)); }
static void hold_socket_name_not_text(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *path = scratch("\377");
    MUST(mkdir(path, 0700));
    MUST(chdir(path));
    strcpy(address.sun_path, "name");
    int fd = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    MUST(bind(fd, (struct sockaddr *)&address, sizeof address));
    MUST(chdir("/"));
}
static void hold_removed_fifo(void)
{
    char *path = scratch("fifo");
    MUST(mkfifo(path, 0600));
    MUST(open(path, O_RDWR | O_CLOEXEC));
    MUST(unlink(path));
}
static void hold_unread_inotify(void)
{
    int fd = MUST(inotify_init1(IN_CLOEXEC));
    char *path = scratch("watched");
    MUST(mkdir(path, 0700));
    MUST(inotify_add_watch(fd, path, IN_CREATE));
    MUST(close(MUST(open(formatted("%s/new", path), O_CREAT | O_WRONLY, 0600))));
}
static void hold_proc_of_ended(void)
{
    pid_t pid = MUST(fork());
    if (pid == 0)
        for (;;)
            pause();
    char *path = formatted("/proc/%d/status", pid);
    MUST(open(path, O_RDONLY | O_CLOEXEC));
    MUST(kill(pid, SIGKILL));
    MUST(waitpid(pid, NULL, 0));
}
static void hold_pressure_trigger(void) { NEED(open("/proc/pressure/cpu", O_RDWR | O_NONBLOCK | O_CLOEXEC)); }

/* State of tasks. */

static void hold_protection_key(void)
{
    int key = (int)NEED(syscall(SYS_pkey_alloc, 0, 0));
    void *memory = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MUST(syscall(SYS_pkey_mprotect, memory, PAGE, PROT_READ | PROT_WRITE, key));
}
static void hold_keyring(void)
{
    NEED(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
    NEED(syscall(SYS_add_key, "user", "holder", "secret", 6UL, KEY_SPEC_SESSION_KEYRING));
}
static void hold_mount_namespace(void) { NEED(unshare(CLONE_NEWNS)); }
static void hold_network_namespace(void) { NEED(unshare(CLONE_NEWNET)); }
static void hold_ipc_namespace(void) { NEED(unshare(CLONE_NEWIPC)); }
static void hold_uts_namespace(void) { NEED(unshare(CLONE_NEWUTS)); }
static void hold_cgroup_namespace(void) { NEED(unshare(CLONE_NEWCGROUP)); }
static void hold_user_namespace(void) { NEED(unshare(CLONE_NEWUSER)); }
static void hold_time_namespace_for_children(void) { NEED(unshare(CLONE_NEWTIME)); }
static void hold_number_namespace(void)
{
    NEED(unshare(CLONE_NEWPID));
    pid_t pid = MUST(fork());
    if (pid == 0) {
        /* Not ready before its number is known. */
        while (strncmp(contents(report_path), "PROCESS", 7) != 0)
            usleep(1000);
        return;
    }
    say_number(pid);
    waitpid(pid, NULL, 0);
    _exit(0);
}
static void hold_descriptors_shared_with_sibling(void)
{
    /* Two children of one root that share their descriptors, and not with it. */
    pid_t pid = MUST(fork());
    if (pid != 0)
        return;
    pid_t middle = MUST(fork());
    if (middle == 0) {
        long sharer = MUST(syscall(SYS_clone, CLONE_FILES | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
        (void)sharer;
    }
    for (;;)
        pause();
}
static void hold_tracer(void)
{
    pid_t pid = MUST(fork());
    if (pid == 0) {
        while (strcmp(field("/proc/self/status", "TracerPid"), "0") == 0)
            usleep(1000);
        say_number(getpid());
        return;
    }
    MUST(ptrace(PTRACE_SEIZE, pid, 0, 0));
    for (int status; waitpid(pid, &status, __WALL) >= 0 && !WIFEXITED(status) && !WIFSIGNALED(status);)
        ;
    _exit(0);
}
/* Two processes of a session whose leader has ended, with different parents. */
static void hold_torn_session(void)
{
    atomic_int *step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    if (MUST(fork()) == 0) {
        pid_t leader = MUST(fork());
        if (leader == 0) {
            MUST(setsid());
            pid_t middle = MUST(fork());
            if (middle == 0) {
                if (MUST(fork()) == 0)
                    for (;;)
                        pause();
                _exit(0);
            }
            MUST(waitpid(middle, NULL, 0));
            if (MUST(fork()) == 0)
                for (;;)
                    pause();
            *step = 1;
            while (*step != 2)
                usleep(1000);
            _exit(0);
        }
        while (*step != 1)
            usleep(1000);
        MUST(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
        *step = 2;
        MUST(waitpid(leader, NULL, 0));
        *step = 3;
        for (;;)
            pause();
    }
    while (*step != 3)
        usleep(1000);
}
static void hold_timer_of_device_clock(void)
{
    int device = open("/dev/ptp0", O_RDONLY | O_CLOEXEC);
    if (device < 0)
        skip("/dev/ptp0: %s", strerror(errno));
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    NEED(timer_create((clockid_t)((~device << 3) | 3), &event, &timer));
}

/* For comparison: nothing that is refused. */
static void hold_none(void) {}

/* Files that have to be at a destination: open, mapped, the working directory. */
static void hold_files(void)
{
    const char *names[] = {"open", "mapped"};
    for (size_t i = 0; i < COUNT(names); i++) {
        int fd = MUST(open(scratch(names[i]), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
        MUST(ftruncate(fd, 2 * PAGE));
        if (i == 1) {
            MUST(mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
            close(fd);
        }
    }
    MUST(mkdir(scratch("directory"), 0755));
    MUST(chdir(scratch("directory")));
}

/* An unlinked file, whose content a destination has to store in the same directory. */
static void hold_unlinked(void)
{
    int fd = MUST(open(scratch("unlinked"), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    char *block = malloc(MIB);
    fill(block, MIB, 5);
    for (int i = 0; i < 8; i++)
        MUST(write(fd, block, MIB));
    MUST(unlink(scratch("unlinked")));
}

/* Memory that a destination needs. */
static void hold_memory(void)
{
    char *memory = MUST(mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(memory, 64 * MIB, 6);
}

static const struct {
    const char *name;
    void (*hold)(void);
} objects[] = {
    {"none", hold_none},
    {"files", hold_files},
    {"unlinked", hold_unlinked},
    {"memory", hold_memory},
    {"blocked_continuation", hold_blocked_continuation},
    {"io_uring", hold_io_uring},
    {"perf_event", hold_perf_event},
    {"bpf", hold_bpf},
    {"userfaultfd", hold_userfaultfd},
    {"userfaultfd_memory", hold_userfaultfd_memory},
    {"fanotify", hold_fanotify},
    {"landlock_ruleset", hold_landlock_ruleset},
    {"landlock_domain", hold_landlock_domain},
    {"seccomp_notifier", hold_seccomp_notifier},
    {"seccomp_supervised", hold_seccomp_supervised},
    {"kvm", hold_kvm},
    {"kvm_machine", hold_kvm_machine},
    {"mount_context", hold_mount_context},
    {"detached_mount", hold_detached_mount},
    {"secret_memory", hold_secret_memory},
    {"secret_mapping", hold_secret_mapping},
    {"aio", hold_aio},
    {"namespace_net", hold_namespace_net},
    {"namespace_mnt", hold_namespace_mnt},
    {"namespace_pid", hold_namespace_pid},
    {"namespace_user", hold_namespace_user},
    {"namespace_uts", hold_namespace_uts},
    {"namespace_ipc", hold_namespace_ipc},
    {"namespace_cgroup", hold_namespace_cgroup},
    {"namespace_time", hold_namespace_time},
    {"tun", hold_tun},
    {"fuse", hold_fuse},
    {"loop_control", hold_loop_control},
    {"kernel_log", hold_kernel_log},
    {"physical_memory", hold_physical_memory},
    {"ports", hold_ports},
    {"registers_of_processor", hold_registers_of_processor},
    {"vsock_device", hold_vsock_device},
    {"disk", hold_disk},
    {"console", hold_console},
    {"tcp_fresh", hold_tcp_fresh},
    {"tcp_listening", hold_tcp_listening},
    {"tcp_listening_6", hold_tcp_listening_6},
    {"tcp_connected", hold_tcp_connected},
    {"tcp_outside", hold_tcp_outside},
    {"tcp_in_flight", hold_tcp_in_flight},
    {"udp", hold_udp},
    {"udp_6", hold_udp_6},
    {"mptcp", hold_mptcp},
    {"raw", hold_raw},
    {"packet", hold_packet},
    {"netlink", hold_netlink},
    {"vsock", hold_vsock},
    {"xdp", hold_xdp},
    {"alg", hold_alg},
    {"pipe_outside", hold_pipe_outside},
    {"pipe_reader_outside", hold_pipe_reader_outside},
    {"fifo_outside", hold_fifo_outside},
    {"unix_outside", hold_unix_outside},
    {"unix_client_outside", hold_unix_client_outside},
    {"terminal_outside", hold_terminal_outside},
    {"terminal_master_outside", hold_terminal_master_outside},
    {"pidfd_outside", hold_pidfd_outside},
    {"memory_file_outside", hold_memory_file_outside},
    {"shared_memory_outside", hold_shared_memory_outside},
    {"unlinked_outside", hold_unlinked_outside},
    {"sysv_memory_outside", hold_sysv_memory_outside},
    {"queue_outside", hold_queue_outside},
    {"owner_outside", hold_owner_outside},
    {"proc_outside", hold_proc_outside},
    {"epoll_member_outside", hold_epoll_member_outside},
    {"lease", hold_lease},
    {"directory_notification", hold_directory_notification},
    {"removed_directory", hold_removed_directory},
    {"removed_working_directory", hold_removed_working_directory},
    {"hidden_name", hold_hidden_name},
    {"replaced_handle", hold_replaced_handle},
    {"name_not_text", hold_name_not_text},
    {"socket_name_not_text", hold_socket_name_not_text},
    {"removed_fifo", hold_removed_fifo},
    {"unread_inotify", hold_unread_inotify},
    {"proc_of_ended", hold_proc_of_ended},
    {"pressure_trigger", hold_pressure_trigger},
    {"protection_key", hold_protection_key},
    {"keyring", hold_keyring},
    {"mount_namespace", hold_mount_namespace},
    {"network_namespace", hold_network_namespace},
    {"ipc_namespace", hold_ipc_namespace},
    {"uts_namespace", hold_uts_namespace},
    {"cgroup_namespace", hold_cgroup_namespace},
    {"user_namespace", hold_user_namespace},
    {"time_namespace_for_children", hold_time_namespace_for_children},
    {"number_namespace", hold_number_namespace},
    {"descriptors_shared_with_sibling", hold_descriptors_shared_with_sibling},
    {"tracer", hold_tracer},
    {"torn_session", hold_torn_session},
    {"timer_of_device_clock", hold_timer_of_device_clock},
};
#endif
