/* workload: identity; kind: task; user: any; about: name, command line, environment, auxiliary vector, executable */
#include "workload.h"
#include <sys/auxv.h>

static char *whole(const char *path, size_t *size)
{
    int fd = MUST(open(path, O_RDONLY | O_CLOEXEC));
    char *bytes = calloc(1, 1 << 20);
    ssize_t got, all = 0;
    while ((got = read(fd, bytes + all, (1 << 20) - (size_t)all)) > 0)
        all += got;
    close(fd);
    *size = (size_t)all;
    return bytes;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(prctl(PR_SET_NAME, "name \n) (odd"));
    const char *files[] = {"/proc/self/cmdline", "/proc/self/environ", "/proc/self/auxv"};
    char *before[3];
    size_t sizes[3];
    for (int i = 0; i < 3; i++)
        before[i] = whole(files[i], &sizes[i]);
    char *program = link_target("/proc/self/exe");
    struct stat file;
    MUST(stat("/proc/self/exe", &file));
    /* The addresses that /proc/self/stat tells: code, stack, data, brk, arguments, environment. */
    unsigned long places[2][10];
    for (int round = 0; round < 2; round++) {
        char *text = contents("/proc/self/stat"), *word = strrchr(text, ')');
        int wanted[] = {26, 27, 28, 45, 46, 47, 48, 49, 50, 51};
        word = strtok(word + 2, " ");
        for (int number = 3, k = 0; word && k < 10; number++, word = strtok(NULL, " "))
            if (number == wanted[k])
                places[round][k++] = strtoul(word, NULL, 10);
        free(text);
        if (round == 0) {
            ready();
            while (running())
                ;
        }
    }
    for (int k = 0; k < 10; k++)
        CHECK(places[0][k] == places[1][k], "address %d of /proc/self/stat: %lx, was %lx", k, places[1][k], places[0][k]);
    for (int i = 0; i < 3; i++) {
        size_t size;
        char *now = whole(files[i], &size);
        CHECK(size == sizes[i] && memcmp(now, before[i], size) == 0, "%s differs: \"%s\"", files[i], now);
    }
    char name[16];
    EXPECT(prctl(PR_GET_NAME, name));
    verify_text(name, "name \n) (odd", "name");
    char *now = link_target("/proc/self/exe");
    verify_text(now, program, "/proc/self/exe");
    struct stat file_now;
    EXPECT(stat("/proc/self/exe", &file_now));
    EQUAL(file_now.st_ino, file.st_ino, "inode of /proc/self/exe");
    return end();
}
