/* workload: mlockall_onfault; kind: memory; user: any; about: memory locked in advance, page by page as it is touched; and none in a child */
#include "workload.h"

static bool locked(const char *memory, const char *flag)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[512];
    bool inside = false, found = false;
    while (file && fgets(line, sizeof line, file)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = start <= (unsigned long)memory && (unsigned long)memory < end;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, flag) != NULL;
    }
    if (file)
        fclose(file);
    return found;
}

static char *page(void) { return EXPECT(mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0)); }

static void verify_child(void *argument)
{
    (void)argument;
    while (running())
        ;
    CHECK(!locked(page(), " lo"), "a child locks what it maps");
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    MUST(mlockall(MCL_FUTURE | MCL_ONFAULT));
    pid_t pid = child(verify_child, NULL);
    ready();
    while (running())
        ;
    char *late = page();
    unsigned char resident = 1;
    EXPECT(mincore(late, PAGE, &resident));
    EQUAL(resident & 1, 0, "an untouched page in memory");
    CHECK(locked(late, " lo"), "memory mapped later is not locked");
    stop_and_collect(pid);
    return end();
}
