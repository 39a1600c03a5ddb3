/* What every workload shares: one program sets up one kind of state, works, and on SIGTERM verifies all of it.
 *
 * argv[1] names the report: the lines READY, then PASS alone, or FAIL lines, or SKIP with a reason. The report is opened
 * for each line and never kept open, so that the program has no descriptor that is not part of its subject.
 * SIGTERM is blocked and asked for, never handled: no system call of the program is interrupted by it.
 *
 * Each file's first line carries tags for the runner:
 *   workload: NAME (the file's) ; kind: ONE WORD, for counting ; user: any (runs as root and as another user) or root ;
 *   refusal: allowed, where godwit may refuse by name what it cannot carry exactly ; about: for people
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define PAGE 4096UL
#define KIB 1024UL
#define MIB (1024UL * 1024UL)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *report_path;
static atomic_int failures;
/* Nanoseconds of CLOCK_REALTIME that the main loop lost in gaps: how long the program was frozen, as it can see it. */
static atomic_llong lost;

UNUSED static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

UNUSED static double real_time(void) { return seconds_of(CLOCK_REALTIME); }

/* Writes one line to the report, in one write. */
UNUSED static void report(const char *line)
{
    int saved = errno, fd = open(report_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line))
        _exit(3);
    close(fd);
    errno = saved;
}

UNUSED static void report_formatted(const char *word, const char *format, va_list arguments)
{
    char text[900], line[1000];
    vsnprintf(text, sizeof text, format, arguments);
    for (char *c = text; *c; c++)
        if (*c == '\n')
            *c = ' ';
    snprintf(line, sizeof line, "%s: %s\n", word, text);
    report(line);
}

/* Something differs. Goes on, so that the report names everything (but not endlessly). */
__attribute__((unused, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    if (atomic_fetch_add(&failures, 1) >= 20)
        return;
    va_list arguments;
    va_start(arguments, format);
    report_formatted("FAIL", format, arguments);
    va_end(arguments);
}

/* The state could not be set up: the workload is of no use here. */
__attribute__((unused, noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report_formatted("FAIL", format, arguments);
    va_end(arguments);
    _exit(1);
}

/* This machine or user cannot have this kind of state. */
__attribute__((unused, noreturn, format(printf, 1, 2))) static void skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    report_formatted("SKIP", format, arguments);
    va_end(arguments);
    _exit(77);
}

#define CHECK(condition, ...) ((condition) ? (void)0 : fail(__VA_ARGS__))
/* Two integers that have to be equal. */
#define EQUAL(actual, expected, what)                                                             \
    do {                                                                                           \
        long long actual_ = (long long)(actual), expected_ = (long long)(expected);               \
        if (actual_ != expected_)                                                                  \
            fail("%s: %lld (0x%llx), was %lld (0x%llx)", what, actual_, actual_, expected_, expected_); \
    } while (0)
/* A call that must not return -1 (or MAP_FAILED). */
#define MUST(call)                                                                                \
    ({                                                                                            \
        __typeof__(call) result_ = (call);                                                        \
        if ((long)result_ == -1L)                                                                 \
            die("line %d: %s: %s", __LINE__, #call, strerror(errno));                             \
        result_;                                                                                  \
    })
/* The same during verification: reports and goes on. */
#define EXPECT(call)                                                                              \
    ({                                                                                            \
        __typeof__(call) result_ = (call);                                                        \
        if ((long)result_ == -1L)                                                                 \
            fail("line %d: %s: %s", __LINE__, #call, strerror(errno));                            \
        result_;                                                                                  \
    })

static double last_beat;

UNUSED static void begin(int argc, char **argv)
{
    if (argc < 2)
        _exit(2);
    report_path = argv[1];
    closefrom(3); /* nothing of whoever started it */
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
}

UNUSED static bool asked_to_stop(void)
{
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGTERM);
}

/* Sleeps, whatever interrupts it. */
UNUSED static void sleep_seconds(double seconds)
{
    double end = real_time() + seconds;
    for (double left; (left = end - real_time()) > 0;) {
        struct timespec time = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
        nanosleep(&time, NULL);
    }
}

/* One beat of a main loop: false once SIGTERM has come. */
UNUSED static bool running(void)
{
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, NULL);
    double now = real_time(), gap = now - last_beat - 0.001;
    if (last_beat != 0 && gap > 0.02)
        lost += (long long)(gap * 1e9);
    last_beat = now;
    return !asked_to_stop();
}

UNUSED static void ready(void)
{
    if (failures)
        _exit(1);
    last_beat = real_time();
    report("READY\n");
}

/* The verdict of the whole program: only its first process gives it. */
UNUSED static int end(void)
{
    if (failures)
        return 1;
    report("PASS\n");
    return 0;
}

/* Starts a child that runs a function and ends with 0 if nothing failed in it. */
UNUSED static pid_t child(void (*function)(void *), void *argument)
{
    pid_t pid = MUST(fork());
    if (pid == 0) {
        failures = 0;
        function(argument);
        _exit(failures ? 1 : 0);
    }
    return pid;
}

/* Waits for a child that must end with a status of 0. */
UNUSED static void collect(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid)
        fail("waitpid %d: %s", pid, strerror(errno));
    else
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with status 0x%x", pid, status);
}

/* Asks a child to verify and end, and waits for it. */
UNUSED static void stop_and_collect(pid_t pid)
{
    EXPECT(kill(pid, SIGTERM));
    collect(pid);
}

UNUSED static pthread_t thread(void *(*function)(void *), void *argument)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, function, argument);
    if (error)
        die("pthread_create: %s", strerror(error));
    return thread;
}

UNUSED static uint64_t mixed(uint64_t number)
{
    number += 0x9e3779b97f4a7c15;
    number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
    number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
    return number ^ (number >> 31);
}

/* A pattern that differs in every word and for every seed. */
UNUSED static void fill(void *memory, size_t size, uint64_t seed)
{
    uint64_t *words = memory;
    for (size_t i = 0; i < size / 8; i++)
        words[i] = mixed(seed * 0x100000001 + i);
    for (size_t i = size / 8 * 8; i < size; i++)
        ((uint8_t *)memory)[i] = (uint8_t)mixed(seed + i);
}

UNUSED static void verify_fill(const void *memory, size_t size, uint64_t seed, const char *what)
{
    const uint64_t *words = memory;
    for (size_t i = 0; i < size / 8; i++)
        if (words[i] != mixed(seed * 0x100000001 + i)) {
            fail("%s: byte %zu of %zu: 0x%016llx, was 0x%016llx", what, i * 8, size, (unsigned long long)words[i],
                 (unsigned long long)mixed(seed * 0x100000001 + i));
            return;
        }
    for (size_t i = size / 8 * 8; i < size; i++)
        if (((const uint8_t *)memory)[i] != (uint8_t)mixed(seed + i)) {
            fail("%s: byte %zu of %zu differs", what, i, size);
            return;
        }
}

UNUSED static void verify_zero(const void *memory, size_t size, const char *what)
{
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)memory)[i]) {
            fail("%s: byte %zu of %zu is not zero", what, i, size);
            return;
        }
}

/* A path of this run's own on disk, beside the report. */
UNUSED static char *scratch(const char *name)
{
    char *path;
    if (asprintf(&path, "%s.%s", report_path, name) < 0)
        die("no memory");
    return path;
}

UNUSED static char *formatted(const char *format, ...)
{
    char *text;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        die("no memory");
    va_end(arguments);
    return text;
}

/* Reads a small file whole; the caller frees. */
UNUSED static char *contents(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return formatted("(%s)", strerror(errno));
    size_t size = 0, room = 1 << 16;
    char *text = malloc(room + 1);
    for (ssize_t got; (got = read(fd, text + size, room - size)) > 0;) {
        size += (size_t)got;
        if (size == room)
            text = realloc(text, (room *= 2) + 1);
    }
    close(fd);
    text[size] = 0;
    return text;
}

/* The rest of the first line that begins with a word, without surrounding blanks. */
UNUSED static char *field(const char *path, const char *word)
{
    char *text = contents(path), *result = NULL;
    for (char *line = text, *next; line && *line; line = next) {
        if ((next = strchr(line, '\n')))
            *next++ = 0;
        if (strncmp(line, word, strlen(word)) == 0) {
            line += strlen(word);
            result = strdup(line + strspn(line, ": \t"));
            break;
        }
    }
    free(text);
    return result ? result : strdup("(none)");
}

UNUSED static void verify_text(const char *actual, const char *expected, const char *what)
{
    CHECK(strcmp(actual, expected) == 0, "%s: \"%s\", was \"%s\"", what, actual, expected);
}

UNUSED static char *link_target(const char *path)
{
    char target[PATH_MAX];
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return formatted("(%s)", strerror(errno));
    target[length] = 0;
    return strdup(target);
}

UNUSED static char *descriptor_target(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return link_target(path);
}

/* Waits until a thread or process sleeps in a system call (state S), so that a move will interrupt it. */
UNUSED static void await_sleep(pid_t task)
{
    for (int i = 0; i < 10000; i++) {
        char *path = formatted("/proc/%d/stat", task), *text = contents(path), *state = strrchr(text, ')');
        bool sleeps = state && state[2] == 'S';
        free(path);
        free(text);
        if (sleeps) {
            sleep_seconds(0.002);
            return;
        }
        sleep_seconds(0.001);
    }
    die("task %d does not sleep", task);
}

/* The list of open descriptors as text: number, target, flags. */
UNUSED static char *descriptor_list(void)
{
    char *list = strdup("");
    for (int fd = 0; fd < 2048; fd++) {
        int flags = fcntl(fd, F_GETFL), close_flag = fcntl(fd, F_GETFD);
        if (flags < 0)
            continue;
        char *target = descriptor_target(fd), *more = formatted("%s%d %s %o %d\n", list, fd, target, flags, close_flag);
        free(list);
        free(target);
        list = more;
    }
    return list;
}

UNUSED static void verify_descriptor_list(const char *expected)
{
    char *actual = descriptor_list();
    verify_text(actual, expected, "descriptors");
    free(actual);
}

/* KiB of the area that begins at an address that are in huge pages; -1: no area begins there. */
UNUSED static long in_huge_pages(const char *start)
{
    char *text = contents("/proc/self/smaps"), *head = formatted("%lx-", (unsigned long)start), *found = NULL;
    for (char *at = text; at && !found; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (strncmp(at, head, strlen(head)) == 0)
            found = strstr(at, "AnonHugePages:");
    long kib = found ? strtol(found + 14, NULL, 10) : -1;
    free(text), free(head);
    return kib;
}

/* The processors that the calling thread may run on are those of before. */
UNUSED static void same_processors(const char *who, const cpu_set_t *were)
{
    cpu_set_t now;
    CPU_ZERO(&now);
    EXPECT(sched_getaffinity(0, sizeof now, &now));
    CHECK(CPU_EQUAL(&now, were), "processors of %s: %lx, were %lx", who, *(unsigned long *)&now, *(unsigned long *)were);
}

#endif
