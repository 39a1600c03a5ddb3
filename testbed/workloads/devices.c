/* workload: devices; kind: file; user: any; about: null, zero, full, random, urandom, and private mappings of zero */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    static const struct { const char *path; int flags; } plans[] = {
        {"/dev/null", O_RDWR}, {"/dev/null", O_WRONLY | O_APPEND | O_CLOEXEC}, {"/dev/zero", O_RDONLY},
        {"/dev/full", O_RDWR | O_NONBLOCK}, {"/dev/random", O_RDONLY}, {"/dev/urandom", O_RDONLY | O_CLOEXEC}};
    int fds[COUNT(plans)];
    for (size_t i = 0; i < COUNT(plans); i++)
        fds[i] = MUST(open(plans[i].path, plans[i].flags));
    char *private = MUST(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fds[2], 0));
    fill(private, 4 * PAGE, 1);
    int writable = MUST(open("/dev/zero", O_RDWR | O_CLOEXEC));
    char *shared = MUST(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, writable, 0));
    fill(shared, 4 * PAGE, 2);
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    char buffer[64] = {1};
    EQUAL(read(fds[0], buffer, 64), 0, "read of null");
    EQUAL(write(fds[1], buffer, 64), 64, "write to null");
    EQUAL(read(fds[2], buffer, 64), 64, "read of zero");
    verify_zero(buffer, 64, "zero");
    EQUAL(write(fds[3], buffer, 64), -1, "write to full");
    EQUAL(errno, ENOSPC, "errno of a write to full");
    EQUAL(read(fds[4], buffer, 64), 64, "read of random");
    EQUAL(read(fds[5], buffer, 64), 64, "read of urandom");
    struct stat status;
    static const int minors[] = {3, 3, 5, 7, 8, 9};
    for (size_t i = 0; i < COUNT(plans); i++) {
        EXPECT(fstat(fds[i], &status));
        EQUAL(status.st_rdev, 0x100 + minors[i], "device number");
    }
    verify_fill(private, 4 * PAGE, 1, "private mapping of zero");
    verify_zero(private + 4 * PAGE, 12 * PAGE, "private mapping of zero");
    verify_fill(shared, 4 * PAGE, 2, "shared mapping of zero");
    return end();
}
