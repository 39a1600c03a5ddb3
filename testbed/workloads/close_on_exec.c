/* workload: close_on_exec; kind: file; user: any; about: descriptors up to high numbers with and without close-on-exec, as an exec after the move sees them */
#include "workload.h"

int main(int argc, char **argv)
{
    if (argc == 4) { /* the program after exec: tells which descriptors it has */
        char list[4096] = "";
        for (int fd = 3; fd < 1024; fd++)
            if (fcntl(fd, F_GETFD) >= 0)
                snprintf(list + strlen(list), sizeof list - strlen(list), "%d ", fd);
        return strcmp(list, argv[3]) != 0;
    }
    begin(argc, argv);
    char expected[4096] = "";
    int null = MUST(open("/dev/null", O_RDONLY | O_CLOEXEC));
    for (int i = 10; i < 1000; i += 37) {
        bool closed = i % 2;
        EQUAL(fcntl(null, closed ? F_DUPFD_CLOEXEC : F_DUPFD, i), i, "descriptor");
        if (!closed)
            snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%d ", i);
    }
    char *list = descriptor_list();
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", argv[0], argv[1], "exec", expected, NULL);
        _exit(127);
    }
    collect(pid);
    return end();
}
