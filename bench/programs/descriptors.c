/* BOARD DIRECTORY COUNT KIND…: about so many descriptors, the same number of every kind: file, pipe, eventfd, socket. Each
 * has state: an offset, unread bytes, a count, an unread datagram. */
#include "board.h"

struct item {
    char kind;
    int descriptors[2];
};

static const char message[] = "a hundred bytes or so that nobody has read yet, and that have to be there afterwards, all of them";

static struct item make(char kind, const char *directory, size_t index)
{
    struct item item = {kind, {-1, -1}};
    uint64_t count = index + 1;
    switch (kind) {
    case 'f': {
        char path[4096];
        snprintf(path, sizeof path, "%s/file-%zu", directory, index);
        item.descriptors[0] = MUST(open(path, O_RDWR | O_CREAT, 0600));
        MUST(ftruncate(item.descriptors[0], 4096));
        MUST(lseek(item.descriptors[0], (off_t)index, SEEK_SET));
        break;
    }
    case 'p':
        MUST(pipe(item.descriptors));
        MUST(write(item.descriptors[1], message, sizeof message));
        break;
    case 'e':
        item.descriptors[0] = MUST(eventfd(0, EFD_NONBLOCK));
        MUST(write(item.descriptors[0], &count, sizeof count));
        break;
    case 's':
        MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, item.descriptors));
        MUST(send(item.descriptors[1], message, sizeof message, 0));
        break;
    default:
        bad("there is no kind %c", kind);
    }
    return item;
}

static void verify(const struct item *item, size_t index)
{
    char text[sizeof message + 10];
    uint64_t count = 0;
    switch (item->kind) {
    case 'f':
        EXPECT(lseek(item->descriptors[0], 0, SEEK_CUR) == (off_t)index, "file %zu lost its offset", index);
        break;
    case 'e':
        EXPECT(read(item->descriptors[0], &count, sizeof count) == 8 && count == index + 1, "eventfd %zu: %llu", index,
               (unsigned long long)count);
        break;
    default:
        EXPECT(read(item->descriptors[0], text, sizeof text) == sizeof message && strcmp(text, message) == 0,
               "%c %zu lost its unread bytes", item->kind, index);
        MUST(write(item->descriptors[1], "x", 1));
        EXPECT(read(item->descriptors[0], text, sizeof text) == 1, "%c %zu does not work", item->kind, index);
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (argc < 5)
        bad("BOARD DIRECTORY COUNT KIND...");
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &limit));
    size_t kinds = (size_t)argc - 4, count = strtoull(argv[3], NULL, 10), items = 0;
    struct item *all = calloc(count, sizeof *all);
    for (size_t open = 3; open < count; items++) {
        /* Kinds of two descriptors come half as often. */
        static size_t of_kind[64];
        size_t least = 0;
        for (size_t k = 1; k < kinds && k < 64; k++)
            if (of_kind[k] < of_kind[least])
                least = k;
        all[items] = make(argv[4 + least][0], argv[2], items);
        size_t used = all[items].descriptors[1] < 0 ? 1 : 2;
        of_kind[least] += used;
        open += used;
    }
    work();
    for (size_t i = 0; i < items; i++)
        verify(&all[i], i);
    return end();
}
