/* workload: o_path; kind: file; user: any; about: descriptors that only name: of a file, a directory, a symbolic link */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *directory = scratch("directory"), *file = formatted("%s/file", directory), *symbolic = formatted("%s/link", directory);
    MUST(mkdir(directory, 0700));
    int made = MUST(open(file, O_RDWR | O_CREAT, 0600));
    EQUAL(write(made, "contents", 8), 8, "write");
    MUST(close(made));
    MUST(symlink("nowhere", symbolic));
    int fds[3] = {MUST(open(file, O_PATH)), MUST(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC)),
                  MUST(open(symbolic, O_PATH | O_NOFOLLOW))};
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    char text[16] = "";
    EQUAL(read(fds[0], text, 8), -1, "read");
    EQUAL(errno, EBADF, "errno of a read");
    EQUAL(fcntl(fds[0], F_GETFL) & O_PATH, O_PATH, "flags");
    char *own = formatted("/proc/self/fd/%d", fds[0]);
    int again = EXPECT(open(own, O_RDONLY | O_CLOEXEC));
    EQUAL(read(again, text, 8), 8, "read after opening");
    verify_text(text, "contents", "contents");
    EQUAL(faccessat(fds[1], "file", F_OK, 0), 0, "a file below the directory");
    EQUAL(readlinkat(fds[2], "", text, 16), 7, "readlink");
    CHECK(memcmp(text, "nowhere", 7) == 0, "the link's target differs");
    unlink(file);
    unlink(symbolic);
    rmdir(directory);
    return end();
}
