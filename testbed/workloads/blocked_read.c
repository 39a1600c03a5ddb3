/* workload: blocked_read; kind: blocked; user: any; about: read of an empty pipe, write to a full one, readv, splice */
#include "blocked.h"
#include <sys/uio.h>

static int empty[3][2], full[2], target[2];
static char received[3][64];

static long do_read(void) { return read(empty[0][0], received[0], 64); }
static long do_readv(void)
{
    struct iovec vector[2] = {{received[1], 2}, {received[1] + 2, 62}};
    return readv(empty[1][0], vector, 2);
}
static long do_splice(void) { return splice(empty[2][0], NULL, target[1], NULL, 64, 0); }
static long do_write(void) { return write(full[1], "more", 4); }

static void wake(void)
{
    for (int i = 0; i < 3; i++)
        EQUAL(write(empty[i][1], "hello", 5), 5, "write");
    char *drain = malloc(1 << 16);
    EQUAL(read(full[0], drain, 1 << 16), 1 << 16, "read of the full pipe");
    EQUAL(read(full[0], drain, 64), 4, "read of what waited to be written");
    CHECK(memcmp(drain, "more", 4) == 0, "what waited to be written differs");
    free(drain);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < 3; i++)
        MUST(pipe(empty[i]));
    MUST(pipe(full));
    MUST(pipe(target));
    char *bytes = calloc(1, 1 << 16);
    EQUAL(write(full[1], bytes, 1 << 16), 1 << 16, "filling a pipe");
    struct blocked list[] = {{.name = "read", .call = do_read, .expected = 5},
                             {.name = "readv", .call = do_readv, .expected = 5},
                             {.name = "splice", .call = do_splice, .expected = 5},
                             {.name = "write", .call = do_write, .expected = 4}};
    BLOCKED_ALL(list, wake);
    CHECK(memcmp(received[0], "hello", 5) == 0, "read: what was read differs");
    CHECK(memcmp(received[1], "hello", 5) == 0, "readv: what was read differs");
    EQUAL(read(target[0], received[2], 64), 5, "what was spliced");
    return end();
}
