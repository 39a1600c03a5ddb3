/* workload: descriptors_full; kind: file; user: root; about: as many descriptors as the process may have */
#include "workload.h"
#include <sys/resource.h>

enum { DESCRIPTORS_MAX = 48 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    int null = MUST(open("/dev/null", O_RDONLY));
    struct rlimit limit = {DESCRIPTORS_MAX, DESCRIPTORS_MAX};
    ready();
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    int last = -1, next;
    while ((next = dup(null)) >= 0)
        last = next;
    int error = errno;
    while (running())
        ;
    int more = dup(null), now = errno;
    int devices = 0;
    for (int fd = null; fd <= last; fd++) {
        struct stat status;
        devices += fstat(fd, &status) == 0 && S_ISCHR(status.st_mode);
    }
    /* The report needs one. */
    close(last);
    EQUAL(devices, last - null + 1, "descriptors that are the device");
    EQUAL(error, EMFILE, "errno of the first dup too many");
    EQUAL(last, DESCRIPTORS_MAX - 1, "the last descriptor");
    EQUAL(more, -1, "a dup too many after the move");
    EQUAL(now, EMFILE, "errno of it");
    return end();
}
