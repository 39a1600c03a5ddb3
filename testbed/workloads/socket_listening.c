/* workload: socket_listening; kind: socket; user: any; about: listening Unix sockets by path and abstract name, accepted connections inside the tree, one not yet accepted */
#include "workload.h"

static struct sockaddr_un addresses[2];
static socklen_t lengths[2];
static atomic_int *step;

static int connected(int which)
{
    int fd = MUST(socket(AF_UNIX, which ? SOCK_SEQPACKET : SOCK_STREAM, 0));
    MUST(connect(fd, (struct sockaddr *)&addresses[which], lengths[which]));
    return fd;
}

static void client(void *unused)
{
    (void)unused;
    int fds[2] = {connected(0), connected(1)};
    for (int i = 0; i < 2; i++)
        EQUAL(send(fds[i], "hello", 5, 0), 5, "send");
    *step = 1;
    while (*step < 2)
        sched_yield();
    int waiting = connected(0); /* nobody accepts it before the move */
    *step = 3; /* and nothing is sent into it: that could not be read from outside */
    while (running())
        ;
    EQUAL(send(waiting, "waiting", 7, 0), 7, "send");
    char text[32] = "";
    EQUAL(recv(fds[0], text, 31, 0), 6, "recv");
    verify_text(text, "server", "words of the server");
    struct sockaddr_un seen;
    socklen_t length = sizeof seen;
    EXPECT(getpeername(fds[1], (struct sockaddr *)&seen, &length));
    CHECK(length == lengths[1] && memcmp(&seen, &addresses[1], length) == 0, "name of the peer differs");
    int late = connected(0);
    EQUAL(send(late, "late", 4, 0), 4, "send");
    EQUAL(recv(waiting, text, 31, 0), 8, "recv on the connection that waited");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    char *path = scratch("s");
    if (strlen(path) >= sizeof addresses[0].sun_path)
        die("the name of the socket is too long: %s", path);
    int listeners[2], accepted[2];
    for (int i = 0; i < 2; i++) {
        addresses[i].sun_family = AF_UNIX;
        listeners[i] = MUST(socket(AF_UNIX, (i ? SOCK_SEQPACKET : SOCK_STREAM) | (i ? SOCK_NONBLOCK : SOCK_CLOEXEC), 0));
        if (i == 0) {
            strcpy(addresses[i].sun_path, path);
            lengths[i] = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
        } else {
            int count = snprintf(addresses[i].sun_path + 1, 100, "listening-%d-%d", getpid(), getuid());
            lengths[i] = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)count);
        }
        MUST(bind(listeners[i], (struct sockaddr *)&addresses[i], lengths[i]));
        MUST(listen(listeners[i], 5 + i));
    }
    pid_t pid = child(client, NULL);
    while (*step < 1)
        sched_yield();
    for (int i = 0; i < 2; i++)
        accepted[i] = MUST(accept(listeners[i], NULL, NULL));
    *step = 2;
    while (*step < 3)
        sched_yield();
    ready();
    while (running())
        ;
    char text[32] = "";
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    for (int i = 0; i < 2; i++) {
        memset(text, 0, sizeof text);
        EQUAL(recv(accepted[i], text, 31, MSG_DONTWAIT), 5, "recv");
        verify_text(text, "hello", "words of the client");
        length = sizeof credentials;
        EXPECT(getsockopt(accepted[i], SOL_SOCKET, SO_PEERCRED, &credentials, &length));
        EQUAL(credentials.pid, pid, "process of the peer");
        EQUAL(credentials.uid, getuid(), "user of the peer");
        int listens = 0;
        length = sizeof listens;
        EXPECT(getsockopt(listeners[i], SOL_SOCKET, SO_ACCEPTCONN, &listens, &length));
        EQUAL(listens, 1, "SO_ACCEPTCONN");
    }
    EQUAL(send(accepted[0], "server", 6, 0), 6, "send");
    int waiting = accept4(listeners[0], NULL, NULL, SOCK_CLOEXEC);
    CHECK(waiting >= 0, "accepting the connection that waited: %s", strerror(errno));
    EQUAL(accept(listeners[1], NULL, NULL), -1, "a connection that nobody made");
    EXPECT(kill(pid, SIGTERM));
    memset(text, 0, sizeof text);
    EQUAL(recv(waiting, text, 31, 0), 7, "recv on the connection that waited");
    verify_text(text, "waiting", "words on the connection that waited");
    EQUAL(send(waiting, "accepted", 8, 0), 8, "send");
    length = sizeof credentials;
    EXPECT(getsockopt(waiting, SOL_SOCKET, SO_PEERCRED, &credentials, &length));
    EQUAL(credentials.pid, pid, "process of the peer that waited");
    EQUAL(credentials.uid, getuid(), "user of the peer that waited");
    struct pollfd set = {listeners[0], POLLIN, 0};
    EQUAL(poll(&set, 1, 5000), 1, "a connection made after the move");
    int late = accept(listeners[0], NULL, NULL);
    EQUAL(recv(late, text, 31, 0), 4, "recv on a connection made after the move");
    collect(pid);
    struct stat status;
    EQUAL(stat(path, &status), 0, "stat of the socket's name");
    EQUAL(status.st_mode & S_IFMT, S_IFSOCK, "type of the socket's name");
    unlink(path);
    return end();
}
