/* workload: refused_objects; kind: file; user: any; refusal: allowed; about: objects that cannot be carried: io_uring, AIO context, secret memory, performance event, namespace handle */
#include "workload.h"
#include <linux/aio_abi.h>
#include <linux/io_uring.h>

int main(int argc, char **argv)
{
    begin(argc, argv);
    struct io_uring_params parameters = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, &parameters);
    aio_context_t context = 0;
    long asynchronous = syscall(SYS_io_setup, 4, &context);
    int secret = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    char *hidden = MAP_FAILED;
    if (secret >= 0 && ftruncate(secret, PAGE) == 0)
        hidden = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, secret, 0);
    if (hidden != MAP_FAILED)
        strcpy(hidden, "secret");
    int namespace = MUST(open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC));
    ready();
    while (running())
        ;
    if (ring >= 0)
        EQUAL(syscall(SYS_io_uring_enter, ring, 0, 0, 0, NULL, 0), 0, "io_uring_enter");
    struct io_event event;
    struct timespec now = {0, 0};
    if (asynchronous == 0)
        EQUAL(syscall(SYS_io_getevents, context, 0, 1, &event, &now), 0, "io_getevents");
    if (hidden != MAP_FAILED)
        verify_text(hidden, "secret", "secret memory");
    struct stat status;
    EXPECT(fstat(namespace, &status));
    return end();
}
