/* workload: memory_shared; kind: memory; user: any; about: MAP_SHARED|MAP_ANONYMOUS memory among parent, child and grandchild, partly mapped, partly untouched */
#include "mappings.h"

#define PAGES 64
#define BIG (256 * MIB)

struct common {
    _Atomic uint64_t counters[3];
    _Atomic uint64_t turn;
};
static struct common *common;
static char *block, *view, *sparse, *readonly;
static struct area_list areas;

static void count(void *argument)
{
    long index = (long)argument;
    pid_t grandchild = index == 1 ? child(count, (void *)2L) : 0;
    munmap(sparse, BIG);
    while (running()) {
        atomic_fetch_add(&common->counters[index], 1);
        /* One of three has the turn and hands it on: everybody must see the same word. */
        if (atomic_load(&common->turn) % 3 == (uint64_t)index)
            atomic_fetch_add(&common->turn, 1);
    }
    for (size_t i = 0; i < PAGES; i++)
        if (i % 3 == 0)
            verify_fill(block + i * PAGE, PAGE, i, "a shared page in the child");
        else if (i != 40)
            verify_zero(block + i * PAGE, PAGE, "an untouched shared page in the child");
    if (grandchild)
        stop_and_collect(grandchild);
    block[40 * PAGE + (size_t)index] = (char)(100 + index);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    common = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    block = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    sparse = MUST(mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    /* A second view of half of it, made by mremap, and a hole in the first one. */
    view = MUST(mremap(block + 32 * PAGE, 0, 16 * PAGE, MREMAP_MAYMOVE));
    readonly = MUST(mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < PAGES; i += 3)
        fill(block + i * PAGE, PAGE, i);
    fill(sparse + BIG / 2, PAGE, 4711);
    pid_t pid = child(count, (void *)1L);
    unsigned long from = (unsigned long)block, to = from + PAGES * PAGE;
    read_areas(&areas, from, to);
    char *name = field("/proc/self/maps", formatted("%lx-%lx", from, to));
    ready();
    uint64_t before = 0;
    while (running()) {
        atomic_fetch_add(&common->counters[0], 1);
        if (atomic_load(&common->turn) % 3 == 0)
            atomic_fetch_add(&common->turn, 1);
        uint64_t now = atomic_load(&common->turn);
        CHECK(now >= before, "the turn went back from %llu to %llu", (unsigned long long)before, (unsigned long long)now);
        before = now;
    }
    /* The children still pass the turn on. */
    for (int i = 0; i < 3000 && atomic_load(&common->turn) < before + 30; i++) {
        if (atomic_load(&common->turn) % 3 == 0)
            atomic_fetch_add(&common->turn, 1);
        sleep_seconds(0.001);
    }
    CHECK(atomic_load(&common->turn) >= before + 30, "the turn is not passed on any more");
    verify_areas(&areas, from, to);
    char *now = field("/proc/self/maps", formatted("%lx-%lx", from, to));
    CHECK(strstr(now, "/dev/zero (deleted)") && strstr(name, "/dev/zero (deleted)"), "maps show %s, was %s", now, name);
    stop_and_collect(pid);
    EQUAL(block[40 * PAGE + 1], 101, "what the child wrote");
    EQUAL(block[40 * PAGE + 2], 102, "what the grandchild wrote");
    fill(block + 33 * PAGE, PAGE, 77);
    verify_fill(view + PAGE, PAGE, 77, "the second view");
    verify_fill(sparse + BIG / 2, PAGE, 4711, "a page in the middle of the sparse area");
    verify_zero(sparse + BIG / 2 + PAGE, PAGE, "its neighbour");
    verify_zero(readonly, PAGE, "the read-only area");
    CHECK(mprotect(readonly, PAGE, PROT_READ | PROT_WRITE) == 0, "read-only shared anonymous memory may become writable: %s",
          strerror(errno));
    return end();
}
