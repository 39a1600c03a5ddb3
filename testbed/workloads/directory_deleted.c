/* workload: directory_deleted; kind: file; user: any; refusal: allowed; about: a working directory and an open directory that have been removed */
#include "workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *directory = scratch("directory"), *other = scratch("other");
    MUST(mkdir(directory, 0700));
    MUST(mkdir(other, 0710));
    MUST(chdir(directory));
    int fd = MUST(open(other, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    MUST(rmdir(directory));
    MUST(rmdir(other));
    char *before = link_target("/proc/self/cwd"), *list = descriptor_list();
    ready();
    while (running())
        ;
    char *now = link_target("/proc/self/cwd");
    verify_text(now, before, "working directory");
    verify_descriptor_list(list);
    EQUAL(getcwd(NULL, 0) != NULL, 0, "getcwd in a removed directory");
    EQUAL(errno, ENOENT, "errno of getcwd");
    EQUAL(open("new", O_CREAT | O_RDWR, 0600), -1, "making a file in a removed directory");
    struct stat status;
    EXPECT(fstat(fd, &status));
    EQUAL(status.st_nlink, 0, "links of an open directory");
    EQUAL(status.st_mode, S_IFDIR | 0710, "mode of an open directory");
    EQUAL(access(directory, F_OK) == 0 || access(other, F_OK) == 0, 0, "a name is back");
    return end();
}
