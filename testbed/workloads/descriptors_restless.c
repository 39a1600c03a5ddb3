/* workload: descriptors_restless; kind: file; user: any; about: 200 descriptors: some stay as they are, the others are read, written, moved, added to, resized, chmoded, closed, opened anew and exchanged all the time, often there and back again; each is compared with what was done to it last */
#include "workload.h"

#define COUNTERS 24
#define PIPES 40
#define FILES 24
#define SOCKETS 12
#define BYTES_MAX 4000
#define FILE_BYTES 8192

struct counter {
    int fd;
    uint64_t count;
    bool semaphore, waits;
};
/* Unread: from `first` on, bytes that its own numbers tell. */
struct pipes {
    int ends[2], size;
    uint64_t first, last;
    mode_t mode;
};
struct file {
    int fd, again, flags;
    off_t offset, size;
    char *path;
};
struct pair {
    int ends[2];
    uint64_t first, last;
};
static struct counter counters[COUNTERS];
static struct pipes pipes[PIPES];
static struct file files[FILES];
static struct pair pairs[SOCKETS];
static uint64_t seed = 1;

static uint64_t any(uint64_t below) { return (seed = mixed(seed)) % below; }

/* A quarter of each kind stays as it was made. */
static size_t restless(size_t count) { return count / 4 + any(count - count / 4); }

static void make_counter(struct counter *own)
{
    own->count = any(100);
    own->semaphore = any(2);
    own->waits = false;
    own->fd = MUST(eventfd((unsigned)own->count, EFD_NONBLOCK | (own->semaphore ? EFD_SEMAPHORE : 0)));
}

static void take(struct counter *own)
{
    uint64_t got = 0, wanted = own->semaphore ? 1 : own->count;
    if (own->count == 0)
        return;
    EQUAL(read(own->fd, &got, 8), 8, "read of a counter");
    EQUAL(got, wanted, "what a counter gave");
    own->count -= wanted;
}

static void put(struct counter *own, uint64_t more)
{
    EQUAL(write(own->fd, &more, 8), 8, "write to a counter");
    own->count += more;
}

static void change_counter(struct counter *own)
{
    switch (any(6)) {
    case 0:
        put(own, 1 + any(5));
        break;
    case 1:
        take(own);
        break;
    case 2: /* there and back */
        put(own, 1);
        if (own->semaphore)
            take(own);
        else {
            uint64_t before = own->count;
            take(own);
            put(own, before);
        }
        break;
    case 3:
        own->waits = !own->waits;
        MUST(fcntl(own->fd, F_SETFL, own->waits ? 0 : O_NONBLOCK));
        break;
    case 4: { /* another one of the same number */
        int number = own->fd;
        MUST(close(number));
        make_counter(own);
        EQUAL(own->fd, number, "number of a counter that was opened anew");
        break;
    }
    default: { /* exchanged with another one */
        struct counter *other = &counters[restless(COUNTERS)], kept = *own;
        if (other == own)
            break;
        int aside = MUST(dup(own->fd));
        MUST(dup2(other->fd, own->fd));
        MUST(dup2(aside, other->fd));
        MUST(close(aside));
        int own_number = own->fd, other_number = other->fd;
        *own = *other, *other = kept;
        own->fd = own_number, other->fd = other_number;
        break;
    }
    }
}

static void push(struct pipes *own, size_t bytes)
{
    uint8_t text[BYTES_MAX];
    for (size_t i = 0; i < bytes; i++)
        text[i] = (uint8_t)mixed(own->last + i);
    ssize_t put = write(own->ends[1], text, bytes);
    if (put > 0)
        own->last += (uint64_t)put;
    else
        EQUAL(errno, EAGAIN, "write to a pipe");
}

static void pull(struct pipes *own, size_t bytes)
{
    uint8_t text[BYTES_MAX];
    ssize_t got = read(own->ends[0], text, bytes);
    if (own->first == own->last) {
        EQUAL(got, -1, "read of an empty pipe");
        return;
    }
    CHECK(got > 0, "read of a pipe: %s", strerror(errno));
    for (ssize_t i = 0; i < got; i++)
        if (text[i] != (uint8_t)mixed(own->first + (uint64_t)i)) {
            fail("byte %llu of a pipe differs", (unsigned long long)own->first + (unsigned long long)i);
            break;
        }
    own->first += (uint64_t)(got > 0 ? got : 0);
}

static void make_pipe(struct pipes *own)
{
    struct stat status;
    MUST(pipe2(own->ends, O_NONBLOCK | (any(2) ? O_CLOEXEC : 0)));
    own->first = own->last = any(1000000);
    own->size = (int)(16 * PAGE);
    MUST(fstat(own->ends[0], &status));
    own->mode = status.st_mode;
    push(own, 1 + any(200));
}

/* Its ends stay: a pipe that comes and goes while a tree is examined seems to have one outside of it. */
static void change_pipe(struct pipes *own)
{
    switch (any(6)) {
    case 0:
        push(own, 1 + any(BYTES_MAX));
        break;
    case 1:
        pull(own, 1 + any(BYTES_MAX));
        break;
    case 2: { /* as many bytes as before, and others */
        size_t bytes = 1 + any(20);
        pull(own, bytes);
        push(own, bytes);
        break;
    }
    case 3: /* There and back: what is in it moves to another ring. */
        if (fcntl(own->ends[0], F_SETPIPE_SZ, 32 * PAGE) > 0 && any(2))
            MUST(fcntl(own->ends[0], F_SETPIPE_SZ, 16 * PAGE));
        own->size = MUST(fcntl(own->ends[0], F_GETPIPE_SZ));
        break;
    case 4:
        own->mode ^= S_IRGRP;
        MUST(fchmod(own->ends[1], own->mode & 07777));
        break;
    default: { /* Empty and filled again: the same slot, the same length, other bytes. */
        while (own->first != own->last)
            pull(own, BYTES_MAX);
        push(own, 100);
    }
    }
}

static void make_file(struct file *own, int number)
{
    own->path = scratch(formatted("%d", number));
    own->flags = O_RDWR;
    own->fd = MUST(open(own->path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    own->again = MUST(dup(own->fd));
    own->size = FILE_BYTES;
    MUST(ftruncate(own->fd, own->size));
    own->offset = MUST(lseek(own->fd, (off_t)any(FILE_BYTES), SEEK_SET));
}

/* Names and lengths stay: what a destination must have is told before. */
static void change_file(struct file *own)
{
    switch (any(4)) {
    case 0:
        own->offset = MUST(lseek(own->fd, (off_t)any(FILE_BYTES), SEEK_SET));
        break;
    case 1: /* there and back */
        MUST(lseek(own->fd, 7, SEEK_CUR));
        MUST(lseek(own->again, -7, SEEK_CUR));
        break;
    case 2:
        own->flags ^= O_APPEND;
        MUST(fcntl(own->again, F_SETFL, own->flags));
        break;
    default: /* A description of its own for the second number, and then the same again: one description more and less. */
        MUST(close(own->again));
        int number = MUST(open(own->path, O_RDONLY));
        EQUAL(number, own->again, "number of a file that was opened anew");
        MUST(dup2(own->fd, own->again));
    }
}

static void change_pair(struct pair *own)
{
    uint64_t text[32] = {0};
    if (own->first < own->last && any(2)) {
        EQUAL(recv(own->ends[0], text, sizeof text, MSG_DONTWAIT), (ssize_t)(8 + own->first % 200), "length of a message");
        EQUAL(text[0], own->first, "number of a message");
        own->first++;
    } else if (own->last - own->first < 5) {
        text[0] = own->last;
        EQUAL(send(own->ends[1], text, 8 + own->last % 200, MSG_DONTWAIT), (ssize_t)(8 + own->last % 200), "send");
        own->last++;
    }
}

static void verify_counter(struct counter *own)
{
    EQUAL(fcntl(own->fd, F_GETFL) & O_NONBLOCK, own->waits ? 0 : O_NONBLOCK, "flags of a counter");
    MUST(fcntl(own->fd, F_SETFL, O_NONBLOCK));
    for (uint64_t left = own->semaphore ? own->count : own->count != 0; left; left--)
        take(own);
    uint64_t none;
    EQUAL(read(own->fd, &none, 8), -1, "read of an empty counter");
}

static void verify_pipe(struct pipes *own)
{
    struct stat status;
    EXPECT(fstat(own->ends[0], &status));
    EQUAL(status.st_mode, own->mode, "mode of a pipe");
    EQUAL(fcntl(own->ends[0], F_GETPIPE_SZ), own->size, "capacity of a pipe");
    int unread = -1;
    EXPECT(ioctl(own->ends[0], FIONREAD, &unread));
    EQUAL(unread, own->last - own->first, "unread bytes of a pipe");
    while (own->first != own->last && !failures)
        pull(own, BYTES_MAX);
    pull(own, 1);
    push(own, 10);
    pull(own, 10);
    EXPECT(close(own->ends[1]));
    char none;
    EQUAL(read(own->ends[0], &none, 1), 0, "end of a pipe without a writer");
}

static void verify_file(struct file *own)
{
    struct stat status, named;
    EXPECT(fstat(own->fd, &status));
    EXPECT(stat(own->path, &named));
    EQUAL(status.st_ino, named.st_ino, "the file of a name");
    EQUAL(status.st_size, own->size, "length of a file");
    EQUAL(lseek(own->fd, 0, SEEK_CUR), own->offset, "offset of a file");
    EQUAL(fcntl(own->fd, F_GETFL) & (O_APPEND | O_ACCMODE), own->flags, "flags of a file");
    EXPECT(lseek(own->again, 1, SEEK_SET));
    EQUAL(lseek(own->fd, 0, SEEK_CUR), 1, "offset of a description with two numbers");
    char link[64], target[4096] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", own->fd);
    EXPECT(readlink(link, target, sizeof target - 1));
    CHECK(strcmp(target, own->path) == 0, "a file's name is %s, was %s", target, own->path);
    unlink(own->path);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < COUNTERS; i++)
        make_counter(&counters[i]);
    for (int i = 0; i < PIPES; i++)
        make_pipe(&pipes[i]);
    for (int i = 0; i < FILES; i++)
        make_file(&files[i], i);
    for (int i = 0; i < SOCKETS; i++) {
        MUST(socketpair(AF_UNIX, i % 2 ? SOCK_SEQPACKET : SOCK_DGRAM, 0, pairs[i].ends));
        for (int count = 0; count < 3; count++)
            change_pair(&pairs[i]);
    }
    ready();
    do {
        /* Sometimes nearly all of them, sometimes few. */
        for (uint64_t left = any(2) ? any(4) : any(400); left; left--)
            switch (any(4)) {
            case 0:
                change_counter(&counters[restless(COUNTERS)]);
                break;
            case 1:
                change_pipe(&pipes[restless(PIPES)]);
                break;
            case 2:
                change_file(&files[restless(FILES)]);
                break;
            default:
                change_pair(&pairs[restless(SOCKETS)]);
            }
    } while (running() && !failures);
    for (int i = 0; i < COUNTERS; i++)
        verify_counter(&counters[i]);
    for (int i = 0; i < PIPES; i++)
        verify_pipe(&pipes[i]);
    for (int i = 0; i < FILES; i++)
        verify_file(&files[i]);
    for (int i = 0; i < SOCKETS; i++)
        while (pairs[i].first != pairs[i].last && !failures)
            change_pair(&pairs[i]);
    return end();
}
