/* The limits of a link, by the shortest way: one TCP stream (cubic), send and recv of 1 MiB buffers; and a request of 4 KiB
 * with an answer of 4 KiB.
 *   stream serve ADDRESS PORT          prints "listening", serves one connection
 *   stream send ADDRESS PORT BYTES     prints the time until the other side has everything, ns
 *   stream carry ADDRESS PORT BYTES    the same out of so much memory into as much that was made beforehand, none of it in a cache
 *   stream ask ADDRESS PORT COUNT      prints the time of each request and answer, ns */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, REQUEST = 4096 };
static const uint64_t CARRY = 1ULL << 63;

static char buffer[BUFFER];

#define MUST(call)                          \
    ({                                      \
        long result_ = (long)(call);        \
        if (result_ < 0) {                  \
            perror(#call);                  \
            exit(1);                        \
        }                                   \
        result_;                            \
    })

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void whole(int socket, size_t bytes, int sending)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t part = sending ? send(socket, buffer + done, bytes - done, 0) : recv(socket, buffer + done, bytes - done, 0);
        if (part <= 0)
            exit(part == 0 && done == 0 && !sending ? 0 : 1);
        done += (size_t)part;
    }
}

/* Memory whose pages are there; in huge ones where it is `made` for the purpose. */
static char *memory(size_t bytes, int made)
{
    char *all = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        exit(1);
    if (made)
        madvise(all, bytes, MADV_HUGEPAGE);
    memset(all, 0x5a, bytes);
    return all;
}

static int serve(int listener)
{
    MUST(listen(listener, 1));
    printf("listening\n");
    fflush(stdout);
    int socket = (int)MUST(accept(listener, NULL, NULL)), one = 1;
    MUST(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    uint64_t bytes;
    MUST(recv(socket, &bytes, sizeof bytes, MSG_WAITALL));
    if (bytes == 0)
        for (;;) {
            whole(socket, REQUEST, 0);
            whole(socket, REQUEST, 1);
        }
    if (bytes & CARRY) {
        bytes &= ~CARRY;
        char *all = memory(bytes, 1);
        MUST(send(socket, "r", 1, 0));
        for (size_t done = 0; done < bytes;) {
            ssize_t part = MUST(recv(socket, all + done, bytes - done, MSG_WAITALL));
            if (part == 0)
                return 1;
            done += (size_t)part;
        }
        MUST(send(socket, "k", 1, 0));
        return 0;
    }
    while (bytes > 0) {
        ssize_t part = MUST(recv(socket, buffer, BUFFER, 0));
        if (part == 0)
            return 1;
        bytes -= (uint64_t)part;
    }
    MUST(send(socket, "k", 1, 0));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    inet_pton(AF_INET, argv[2], &address.sin_addr);
    int socket_ = (int)MUST(socket(AF_INET, SOCK_STREAM, 0)), one = 1;
    /* Where cubic is a module that is not there, the kernel's default is what everybody gets. */
    setsockopt(socket_, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    memset(buffer, 0x5a, BUFFER);
    if (strcmp(argv[1], "serve") == 0) {
        MUST(setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
        MUST(bind(socket_, (struct sockaddr *)&address, sizeof address));
        return serve(socket_);
    }
    MUST(connect(socket_, (struct sockaddr *)&address, sizeof address));
    MUST(setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    uint64_t count = argc > 4 ? strtoull(argv[4], NULL, 10) : 1, zero = 0;
    if (strcmp(argv[1], "ask") == 0) {
        MUST(send(socket_, &zero, sizeof zero, 0));
        for (uint64_t i = 0; i < count; i++) {
            uint64_t start = now();
            whole(socket_, REQUEST, 1);
            whole(socket_, REQUEST, 0);
            printf("%llu\n", (unsigned long long)(now() - start));
        }
        return 0;
    }
    if (strcmp(argv[1], "carry") == 0) {
        char *all = memory(count, 0);
        uint64_t asked = count | CARRY;
        MUST(send(socket_, &asked, sizeof asked, 0));
        MUST(recv(socket_, buffer, 1, MSG_WAITALL));
        uint64_t start = now();
        for (size_t done = 0; done < count;)
            done += (size_t)MUST(send(socket_, all + done, count - done, 0));
        MUST(recv(socket_, buffer, 1, MSG_WAITALL));
        printf("%llu\n", (unsigned long long)(now() - start));
        return 0;
    }
    uint64_t start = now();
    MUST(send(socket_, &count, sizeof count, 0));
    for (uint64_t left = count; left > 0;) {
        size_t part = left < BUFFER ? (size_t)left : BUFFER;
        whole(socket_, part, 1);
        left -= part;
    }
    MUST(recv(socket_, buffer, 1, MSG_WAITALL));
    printf("%llu\n", (unsigned long long)(now() - start));
    return 0;
}
