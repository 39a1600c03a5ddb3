/* workload: thread_unshared; kind: file; user: any; refusal: allowed; about: threads with a file table, a directory and umask of their own */
#include "workload.h"

static atomic_int up, stop;
static int shared_fd;

static void *own_files(void *unused)
{
    (void)unused;
    MUST(unshare(CLONE_FILES));
    int null = MUST(open("/dev/null", O_RDWR));
    MUST(dup2(null, shared_fd)); /* the number means something else here */
    int fd = MUST(eventfd(42, 0));
    MUST(dup2(fd, 700));
    up++;
    while (!stop)
        sleep_seconds(0.001);
    char *path = formatted("/proc/self/task/%d/fd/%d", gettid(), shared_fd), *target = link_target(path);
    verify_text(target, "/dev/null", "descriptor of a thread's own table");
    uint64_t value = 0;
    EQUAL(read(700, &value, 8), 8, "read of an eventfd of a thread's own table");
    EQUAL(value, 42, "count");
    free(path), free(target);
    return NULL;
}

static void *own_directory(void *unused)
{
    (void)unused;
    MUST(unshare(CLONE_FS));
    MUST(chdir("/dev"));
    umask(0321);
    up++;
    while (!stop)
        sleep_seconds(0.001);
    char *now = getcwd(NULL, 0);
    verify_text(now, "/dev", "directory of a thread");
    EQUAL(umask(0), 0321, "umask of a thread");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    umask(022);
    shared_fd = MUST(open("/dev/zero", O_RDONLY));
    pthread_t threads[2] = {thread(own_files, NULL), thread(own_directory, NULL)};
    while (up < 2)
        sched_yield();
    char *list = descriptor_list(), *directory = getcwd(NULL, 0);
    ready();
    while (running())
        ;
    verify_descriptor_list(list);
    EQUAL(fcntl(700, F_GETFD), -1, "a thread's own descriptor in the shared table");
    char *now = getcwd(NULL, 0);
    verify_text(now, directory, "directory");
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    EQUAL(umask(0), 022, "umask");
    return end();
}
