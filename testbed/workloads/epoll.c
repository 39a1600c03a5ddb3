/* workload: epoll; kind: file; user: any; about: epoll sets: nested, edge-triggered, one-shot fired, ready, duplicated members */
#include "workload.h"

/* All events that a set tells now, as one number per kind of member. */
static int told(int set, struct epoll_event *events) { return epoll_wait(set, events, 16, 0); }

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Sorted: the kernel lists the members by the addresses of its own structures. */
static char *interest(int set)
{
    char *path = formatted("/proc/self/fdinfo/%d", set), *text = contents(path), *list = strdup(""), *lines[16];
    size_t count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, "tfd:", 4) == 0 && count < COUNT(lines)) {
            char *stop = strstr(line, "pos:");
            if (stop)
                *stop = 0;
            lines[count++] = line;
        }
    qsort(lines, count, sizeof *lines, by_text);
    for (size_t i = 0; i < count; i++) {
        char *more = formatted("%s%s|", list, lines[i]);
        free(list);
        list = more;
    }
    free(text), free(path);
    return list;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    int inner = MUST(epoll_create1(EPOLL_CLOEXEC)), outer = MUST(epoll_create1(0)), ends[5][2], count = MUST(eventfd(3, 0));
    for (int i = 0; i < 5; i++)
        MUST(pipe(ends[i]));
    struct epoll_event events[16], event = {.events = EPOLLIN, .data.u64 = 0xaaaa000000000001};
    MUST(epoll_ctl(inner, EPOLL_CTL_ADD, ends[0][0], &event)); /* level, ready */
    event = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.u64 = 2};
    MUST(epoll_ctl(inner, EPOLL_CTL_ADD, ends[1][0], &event)); /* edge, told already */
    event = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3};
    MUST(epoll_ctl(inner, EPOLL_CTL_ADD, ends[2][0], &event)); /* one-shot, fired */
    event = (struct epoll_event){.events = EPOLLIN | EPOLLET | EPOLLONESHOT | EPOLLRDHUP, .data.u64 = 4};
    MUST(epoll_ctl(inner, EPOLL_CTL_ADD, ends[3][0], &event)); /* armed, nothing there */
    event = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLEXCLUSIVE, .data.u64 = 5};
    MUST(epoll_ctl(outer, EPOLL_CTL_ADD, count, &event));
    event = (struct epoll_event){.events = EPOLLIN, .data.u64 = 6};
    MUST(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event));
    int twice = MUST(dup(ends[0][0]));
    event = (struct epoll_event){.events = EPOLLIN, .data.u64 = 7};
    MUST(epoll_ctl(inner, EPOLL_CTL_ADD, twice, &event)); /* the same file under another number */
    for (int i = 0; i < 3; i++)
        MUST(write(ends[i][1], "x", 1));
    EQUAL(told(inner, events), 4, "events before");
    EQUAL(told(inner, events), 2, "events left before");
    char *before[2] = {interest(inner), interest(outer)};
    ready();
    while (running())
        ;
    char *now[2] = {interest(inner), interest(outer)};
    for (int i = 0; i < 2; i++)
        verify_text(now[i], before[i], "interest of a set");
    /* Level-triggered members are told again; the edge was told before; the one-shot has fired. */
    int number = told(inner, events);
    uint64_t seen = 0;
    for (int i = 0; i < number; i++)
        seen |= 1UL << (events[i].data.u64 & 0xff);
    EQUAL(number, 2, "events");
    EQUAL(seen, 1 << 1 | 1 << 7, "members told");
    number = told(outer, events);
    seen = 0;
    for (int i = 0; i < number; i++)
        seen |= 1UL << events[i].data.u64;
    EQUAL(seen, 1 << 5 | 1 << 6, "members told by the outer set");
    EQUAL(write(ends[1][1], "y", 1), 1, "write");
    EQUAL(write(ends[3][1], "y", 1), 1, "write");
    EQUAL(write(ends[2][1], "y", 1), 1, "write");
    number = told(inner, events);
    seen = 0;
    for (int i = 0; i < number; i++)
        seen |= 1UL << (events[i].data.u64 & 0xff);
    EQUAL(seen, 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7, "members told after writing");
    event = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3};
    EQUAL(epoll_ctl(inner, EPOLL_CTL_MOD, ends[2][0], &event), 0, "rearming the one-shot member");
    number = told(inner, events);
    seen = 0;
    for (int i = 0; i < number; i++)
        seen |= 1UL << (events[i].data.u64 & 0xff);
    EQUAL(seen, 1 << 1 | 1 << 3 | 1 << 7, "members told after rearming");
    EQUAL(epoll_ctl(inner, EPOLL_CTL_ADD, ends[0][0], &event), -1, "adding a member again");
    EQUAL(epoll_ctl(inner, EPOLL_CTL_DEL, twice, NULL), 0, "removing a member");
    return end();
}
