/* The memory map as data, to be compared before and after: adjacent areas that differ in nothing are one, and the lower
 * end of the stack and the upper end of the heap may move. */
#ifndef MAPPINGS_H
#define MAPPINGS_H
#include "workload.h"

struct area {
    unsigned long start, end, offset, inode;
    char protection[5], name[200], flags[120];
};

#define AREAS 1000
struct area_list {
    size_t count;
    struct area areas[AREAS];
};

static bool continues(const struct area *before, const struct area *next)
{
    return before->end == next->start && strcmp(before->protection, next->protection) == 0 &&
           strcmp(before->flags, next->flags) == 0 && strcmp(before->name, next->name) == 0 &&
           before->inode == next->inode &&
           (next->inode == 0 || before->offset + (before->end - before->start) == next->offset);
}

/* Reads /proc/self/smaps; only areas within a range. */
static void read_areas(struct area_list *list, unsigned long from, unsigned long to)
{
    static char line[1024];
    FILE *file = fopen("/proc/self/smaps", "re");
    if (!file)
        die("smaps: %s", strerror(errno));
    struct area area = {0};
    list->count = 0;
    while (fgets(line, sizeof line, file)) {
        struct area next = {0};
        if (sscanf(line, "%lx-%lx %4s %lx %*s %lu %199[^\n]", &next.start, &next.end, next.protection, &next.offset,
                   &next.inode, next.name) >= 5) {
            area = next;
            /* The inode number of a file without a name is the kernel's choice. */
            if (strstr(area.name, " (deleted)"))
                area.inode = 1;
        } else if (strncmp(line, "VmFlags:", 8) == 0 && area.start < to && area.end > from) {
            snprintf(area.flags, sizeof area.flags, "%.110s", line + 8);
            area.flags[strcspn(area.flags, "\n")] = 0;
            /* Accounting and soft-dirty are not state of the program, nor is that pages of it are still somewhere else. */
            for (char *flag; (flag = strstr(area.flags, " ac")) || (flag = strstr(area.flags, " sd")) ||
                             (flag = strstr(area.flags, " um"));)
                memmove(flag, flag + 3, strlen(flag + 3) + 1);
            if (list->count && continues(&list->areas[list->count - 1], &area))
                list->areas[list->count - 1].end = area.end;
            else if (list->count < AREAS)
                list->areas[list->count++] = area;
            else
                die("more than %d areas", AREAS);
        }
    }
    fclose(file);
}

static bool both_named(const struct area *old, const struct area *new, const char *name)
{
    return strcmp(old->name, name) == 0 && strcmp(new->name, name) == 0;
}

/* Compares the areas within a range with an earlier list of it. */
UNUSED static void verify_areas(const struct area_list *before, unsigned long from, unsigned long to)
{
    static struct area_list now;
    read_areas(&now, from, to);
    for (size_t i = 0; i < before->count && i < now.count; i++) {
        const struct area *old = &before->areas[i], *new = &now.areas[i];
        if ((old->start != new->start && !both_named(old, new, "[stack]")) ||
            (old->end != new->end && !both_named(old, new, "[heap]")) || strcmp(old->protection, new->protection) ||
            strcmp(old->name, new->name) || strcmp(old->flags, new->flags) || old->inode != new->inode ||
            (old->inode && old->offset != new->offset)) {
            fail("area %lx-%lx %s %lx %s%s, was %lx-%lx %s %lx %s%s", new->start, new->end, new->protection,
                 new->offset, new->name, new->flags, old->start, old->end, old->protection, old->offset, old->name,
                 old->flags);
            return;
        }
    }
    EQUAL(now.count, before->count, "number of areas");
}
#endif
