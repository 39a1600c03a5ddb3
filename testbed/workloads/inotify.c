/* workload: inotify; kind: file; user: any; about: inotify watches with their numbers and masks, no event lost and none too many */
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
    char *directory = scratch("directory"), *file = formatted("%s/file", directory), *later = formatted("%s/later", directory);
    MUST(mkdir(directory, 0700));
    int made = MUST(open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    int quiet = MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    int gone = MUST(inotify_add_watch(quiet, "/", IN_CREATE));
    int on_directory = MUST(inotify_add_watch(quiet, directory, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR));
    int on_file = MUST(inotify_add_watch(quiet, file, IN_MODIFY | IN_ATTRIB));
    MUST(inotify_rm_watch(quiet, gone)); /* numbers begin at 2 */
    char drain[64];
    MUST(read(quiet, drain, sizeof drain)); /* IN_IGNORED of it */
    int unread = MUST(open(later, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    MUST(read(quiet, drain, sizeof drain)); /* its creation: the quiet one has nothing unread */
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    EQUAL(read(quiet, drain, sizeof drain), -1, "an event that nobody caused");
    EQUAL(write(made, "x", 1), 1, "write");
    wait_for(quiet, on_file, IN_MODIFY, "");
    EXPECT(fchmod(made, 0640));
    wait_for(quiet, on_file, IN_ATTRIB, "");
    char *moved = formatted("%s/moved", directory);
    EXPECT(rename(later, moved));
    EXPECT(unlink(moved));
    wait_for(quiet, on_directory, IN_MOVED_FROM, "later");
    wait_for(quiet, on_directory, IN_MOVED_TO, "moved");
    wait_for(quiet, on_directory, IN_DELETE, "moved");
    EQUAL(inotify_add_watch(quiet, file, IN_MODIFY), on_file, "number of a watch that is there");
    int next = inotify_add_watch(quiet, "/", IN_CREATE);
    CHECK(next > on_file, "number of a new watch: %d, the last was %d", next, on_file);
    (void)unread;
    unlink(file);
    rmdir(directory);
    return end();
}
