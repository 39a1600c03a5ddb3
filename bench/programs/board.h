/* What a program of the benches shares with whoever measures it: one page of a file that both hosts see.
 *
 * The root process works in a loop and looks at CLOCK_REALTIME each time: the largest step between two looks is the time
 * in which it did not run, as it saw it itself. (CLOCK_MONOTONIC would not do: a time namespace takes the down time out.) */
#ifndef BOARD_H
#define BOARD_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

enum phase { SETTING_UP, READY, GOOD, BAD };
enum command { GO_ON, FORGET, VERIFY };
enum { STALLS = 224, STALLS_BEGIN = 10 };

/* bench/src/board.rs reads and writes it by offsets. */
struct board {
    _Atomic uint64_t rounds;      /*  0 of the loop */
    _Atomic uint64_t gap;         /*  8 the largest, ns */
    _Atomic uint64_t gap_end;     /* 16 CLOCK_REALTIME when it was over, ns */
    _Atomic uint64_t phase;       /* 24 set by the program */
    _Atomic uint64_t command;     /* 32 set by who measures; FORGET is answered by GO_ON */
    char text[216];               /* 40 what was wrong */
    uint64_t unused[32];          /* 256 */
    _Atomic uint64_t stalls[STALLS]; /* 512 how often it waited so long: eight for each doubling, from 1 us on */
};

static struct board *board;

UNUSED __attribute__((noreturn, format(printf, 1, 2))) static void bad(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(board->text, sizeof board->text, format, arguments);
    va_end(arguments);
    board->phase = BAD;
    _exit(1);
}

#define MUST(call)                                                             \
    ({                                                                         \
        __typeof__(call) result_ = (call);                                     \
        if ((long)result_ == -1L)                                              \
            bad("line %d: %s: %s", __LINE__, #call, strerror(errno));          \
        result_;                                                               \
    })
#define EXPECT(condition, ...) ((condition) ? (void)0 : bad(__VA_ARGS__))

UNUSED static uint64_t real_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* First argument: the board's file. */
UNUSED static void begin(int argc, char **argv)
{
    if (argc < 2)
        _exit(2);
    closefrom(3); /* nothing of whoever started it */
    int file = open(argv[1], O_RDWR | O_CLOEXEC);
    if (file < 0)
        _exit(3);
    board = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (board == MAP_FAILED)
        _exit(4);
    close(file);
}

/* Notes that it waited so long. */
UNUSED static void note_stall(uint64_t time)
{
    if (time >> STALLS_BEGIN == 0)
        return;
    unsigned doublings = 63 - (unsigned)__builtin_clzll(time);
    unsigned slot = (doublings - STALLS_BEGIN) * 8 + (unsigned)(time >> (doublings - 3) & 7);
    board->stalls[slot < STALLS ? slot : STALLS - 1]++;
}

/* One look at the clock: false when it is asked to verify. */
UNUSED static bool look(uint64_t *last)
{
    uint64_t now = real_time();
    if (now - *last > board->gap) {
        board->gap = now - *last;
        board->gap_end = now;
    }
    *last = now;
    board->rounds++;
    if (board->command == VERIFY)
        return false;
    if (board->command == FORGET) {
        board->gap = 0;
        for (int i = 0; i < STALLS; i++)
            board->stalls[i] = 0;
        board->command = GO_ON;
        *last = real_time();
    }
    return true;
}

/* Works until it is asked to verify. */
UNUSED static void work(void)
{
    board->phase = READY;
    uint64_t last = real_time();
    pid_t self = getpid();
    do
        EXPECT(syscall(SYS_getpid) == self, "getpid changed");
    while (look(&last));
}

UNUSED static int end(void)
{
    board->phase = GOOD;
    return 0;
}

UNUSED static void nap(void)
{
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, NULL);
}

/* Random enough that no compressor and no zero page helps. */
UNUSED static uint64_t mixed(uint64_t number)
{
    number += 0x9e3779b97f4a7c15;
    number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
    number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
    return number ^ (number >> 31);
}

UNUSED static void fill(void *memory, size_t bytes, uint64_t seed)
{
    uint64_t *words = memory;
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = mixed(seed * 0x100000001 + i);
}

UNUSED static void verify_fill(const void *memory, size_t bytes, uint64_t seed, const char *what)
{
    const uint64_t *words = memory;
    for (size_t i = 0; i < bytes / 8; i++)
        EXPECT(words[i] == mixed(seed * 0x100000001 + i), "%s: byte %zu of %zu differs", what, i * 8, bytes);
}
#endif
