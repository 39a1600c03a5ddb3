/* workload: protection_keys; kind: memory; user: any; refusal: allowed; about: memory protection keys of areas and the rights of each thread */
#include "mappings.h"

static struct area_list areas;
static int keys[2];
static atomic_int up, stop;

static void *run(void *unused)
{
    (void)unused;
    pkey_set(keys[0], PKEY_DISABLE_ACCESS);
    pkey_set(keys[1], 0);
    up = 1;
    while (!stop)
        sleep_seconds(0.001);
    EQUAL(pkey_get(keys[0]), PKEY_DISABLE_ACCESS, "rights of a thread");
    EQUAL(pkey_get(keys[1]), 0, "rights of a thread");
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    keys[0] = pkey_alloc(0, PKEY_DISABLE_WRITE);
    if (keys[0] < 0)
        skip("pkey_alloc: %s", strerror(errno));
    keys[1] = MUST(pkey_alloc(0, PKEY_DISABLE_ACCESS));
    char *region = MUST(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(region, 4 * PAGE, 1);
    MUST(pkey_mprotect(region, PAGE, PROT_READ | PROT_WRITE, keys[0]));
    MUST(pkey_mprotect(region + PAGE, PAGE, PROT_READ | PROT_WRITE, keys[1]));
    pthread_t other = thread(run, NULL);
    while (!up)
        sched_yield();
    read_areas(&areas, (unsigned long)region, (unsigned long)region + 4 * PAGE);
    ready();
    while (running())
        ;
    verify_areas(&areas, (unsigned long)region, (unsigned long)region + 4 * PAGE);
    EQUAL(pkey_get(keys[0]), PKEY_DISABLE_WRITE, "rights of the first thread");
    EQUAL(pkey_get(keys[1]), PKEY_DISABLE_ACCESS, "rights of the first thread");
    verify_fill(region, PAGE, 1, "area that may be read");
    pkey_set(keys[1], 0);
    char *expected = malloc(4 * PAGE);
    fill(expected, 4 * PAGE, 1);
    CHECK(memcmp(expected, region, 4 * PAGE) == 0, "area with keys differs");
    EQUAL(pkey_free(keys[0]), 0, "key still allocated");
    stop = 1;
    pthread_join(other, NULL);
    return end();
}
