/* workload: heartbeat; kind: process; user: any; about: two processes whose numbered heartbeats tell on which host each beat was made */
#include "workload.h"
#include <sys/utsname.h>

#define MEMORY (16 * MIB)

static char *beats;

/* One line in one write: who, its number, the host it was made on, when. Nothing of it is open between two beats. */
static void beat(char who, unsigned long *number)
{
    struct utsname host;
    EXPECT(uname(&host));
    char line[200];
    int length = snprintf(line, sizeof line, "%c %lu %s %.6f\n", who, ++*number, host.nodename, real_time());
    int fd = EXPECT(open(beats, O_WRONLY | O_APPEND | O_CLOEXEC));
    EQUAL(write(fd, line, (size_t)length), length, "write of a heartbeat");
    close(fd);
}

static void second(void *unused)
{
    (void)unused;
    unsigned long number = 0;
    while (running())
        beat('b', &number);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    beats = scratch("beats");
    close(MUST(open(beats, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)));
    uint8_t *memory = MUST(mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(memory, MEMORY, 66);
    pid_t pid = child(second, NULL);
    unsigned long number = 0;
    ready();
    while (running())
        beat('a', &number);
    verify_fill(memory, MEMORY, 66, "memory");
    stop_and_collect(pid);
    return end();
}
