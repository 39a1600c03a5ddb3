/* workload: inotify_unread; kind: file; user: any; refusal: allowed; about: inotify events that wait to be read */
#include "workload.h"
#include <sys/inotify.h>

static int wait_for(int fd, int watch, uint32_t mask, const char *name)
{
    char buffer[4096] __attribute__((aligned(8)));
    static char rest[4096] __attribute__((aligned(8)));
    static ssize_t have;
    if (have == 0)
        have = read(fd, rest, sizeof rest);
    if (have <= 0) {
        fail("event %x of watch %d (%s) is lost", mask, watch, name);
        have = 0;
        return -1;
    }
    struct inotify_event *event = (struct inotify_event *)rest;
    size_t size = sizeof *event + event->len;
    CHECK(event->wd == watch && event->mask == mask && strcmp(event->len ? event->name : "", name) == 0,
          "event: watch %d mask %x name %s, should be %d %x %s", event->wd, event->mask, event->len ? event->name : "", watch,
          mask, name);
    memcpy(buffer, rest + size, (size_t)have - size);
    have -= (ssize_t)size;
    memcpy(rest, buffer, (size_t)have);
    return 0;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *directory = scratch("directory"), *later = formatted("%s/later", directory), drain[64];
    MUST(mkdir(directory, 0700));
    int full = MUST(inotify_init1(IN_NONBLOCK)), watch = MUST(inotify_add_watch(full, directory, IN_CREATE | IN_OPEN));
    int made = MUST(open(later, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ready();
    while (running())
        ;
    wait_for(full, watch, IN_CREATE, "later");
    wait_for(full, watch, IN_OPEN, "later");
    EQUAL(read(full, drain, sizeof drain), -1, "an event too many");
    close(made);
    unlink(later);
    rmdir(directory);
    return end();
}
