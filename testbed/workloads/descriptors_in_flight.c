/* workload: descriptors_in_flight; kind: socket; user: any; about: descriptors and credentials inside unread messages of Unix sockets, one in a socket in flight itself */
#include "workload.h"

static void send_fds(int socket, const char *text, const int *fds, int count)
{
    char control[CMSG_SPACE(16 * sizeof(int))];
    struct iovec vector = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    memset(control, 0, sizeof control);
    if (count) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, (size_t)count * sizeof(int));
    }
    EQUAL(sendmsg(socket, &message, 0), strlen(text), "sendmsg");
}

/* Receives one message; returns how many descriptors came with it. */
static int receive(int socket, const char *expected, int *fds, struct ucred *credentials)
{
    char text[64] = "", control[CMSG_SPACE(16 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    struct iovec vector = {text, strlen(expected)};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    EQUAL(got, strlen(expected), "recvmsg");
    verify_text(text, expected, "text of a message");
    EQUAL(message.msg_flags & (MSG_CTRUNC | MSG_TRUNC), 0, "flags of a message");
    int count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); got >= 0 && header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_type == SCM_RIGHTS) {
            count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(header), (size_t)count * sizeof(int));
        } else if (header->cmsg_type == SCM_CREDENTIALS && credentials) {
            memcpy(credentials, CMSG_DATA(header), sizeof *credentials);
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int stream[2], inner[2], packets[2], ends[2], held[2], one = 1, fds[16];
    char *path = scratch("file");
    int file = MUST(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    EQUAL(write(file, "file contents", 13), 13, "write");
    MUST(lseek(file, 5, SEEK_SET));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, inner));
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
    MUST(setsockopt(packets[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one));
    MUST(pipe(ends));
    MUST(pipe(held));
    EQUAL(write(ends[1], "pipe contents", 13), 13, "write");
    int event = MUST(eventfd(77, EFD_NONBLOCK));
    int first[] = {file, ends[0], ends[1]}, second[] = {event, held[1]}, third[] = {inner[0]};
    send_fds(stream[0], "plain", NULL, 0);
    send_fds(stream[0], "three", first, 3);
    send_fds(inner[1], "inside", second, 2); /* in flight in a socket ... */
    send_fds(stream[0], "socket", third, 1); /* ... that is itself in flight */
    send_fds(packets[0], "packet", second, 1);
    send_fds(packets[0], "empty", NULL, 0);
    close(file), close(ends[0]), close(ends[1]), close(event), close(inner[0]), close(held[1]);
    ready();
    while (running())
        ;
    char text[32] = "";
    EQUAL(receive(stream[1], "plain", fds, NULL), 0, "descriptors of a plain message");
    EQUAL(receive(stream[1], "three", fds, NULL), 3, "descriptors of a message");
    EQUAL(lseek(fds[0], 0, SEEK_CUR), 5, "offset of a file in flight");
    EQUAL(pread(fds[0], text, 31, 0), 13, "read of a file in flight");
    verify_text(text, "file contents", "file in flight");
    EXPECT(fcntl(fds[1], F_SETFL, O_NONBLOCK));
    memset(text, 0, sizeof text);
    EQUAL(read(fds[1], text, 31), 13, "read of a pipe in flight");
    verify_text(text, "pipe contents", "pipe in flight");
    EQUAL(write(fds[2], "more", 4), 4, "write to a pipe in flight");
    EQUAL(read(fds[1], text, 31), 4, "read of a pipe in flight");
    EQUAL(receive(stream[1], "socket", fds, NULL), 1, "descriptors of a message");
    int nested[16];
    EQUAL(receive(fds[0], "inside", nested, NULL), 2, "descriptors inside a socket in flight");
    uint64_t value = 0;
    struct ucred credentials = {0, 0, 0};
    EQUAL(receive(packets[1], "packet", fds, &credentials), 1, "descriptors of a packet");
    EQUAL(credentials.pid, getpid(), "process of the sender");
    EQUAL(credentials.uid, getuid(), "user of the sender");
    EQUAL(credentials.gid, getgid(), "group of the sender");
    EQUAL(receive(packets[1], "empty", fds + 1, &credentials), 0, "descriptors of a packet without");
    EQUAL(read(fds[0], &value, 8), 8, "read of an eventfd in flight");
    EQUAL(value, 77, "count of an eventfd in flight");
    EQUAL(write(fds[0], &value, 8), 8, "write to an eventfd in flight");
    EQUAL(read(nested[0], &value, 8), 8, "the same eventfd, in flight twice");
    EQUAL(write(nested[1], "held", 4), 4, "write to a pipe in flight");
    EQUAL(read(held[0], text, 31), 4, "read of a pipe whose writer was in flight");
    close(nested[1]);
    EQUAL(read(held[0], text, 31), 0, "end of a pipe whose writer was in flight");
    unlink(path);
    return end();
}
