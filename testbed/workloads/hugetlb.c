/* workload: hugetlb; kind: memory; user: root; about: huge pages of the pool, private and shared */
#include "mappings.h"

#define SIZE (4 * MIB)
static struct area_list areas;

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *private = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    char *shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (private == MAP_FAILED || shared == MAP_FAILED)
        skip("no huge pages: write 4 to /proc/sys/vm/nr_hugepages");
    int file = memfd_create("huge pages", MFD_HUGETLB | MFD_ALLOW_SEALING);
    MUST(file);
    MUST(ftruncate(file, SIZE));
    char *of_file = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (of_file == MAP_FAILED)
        skip("too few huge pages: write 8 to /proc/sys/vm/nr_hugepages");
    fill(of_file + SIZE / 2, SIZE / 2, 3);
    MUST(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
    fill(private, SIZE, 1);
    fill(shared, SIZE / 2, 2);
    read_areas(&areas, (unsigned long)private, (unsigned long)private + SIZE);
    ready();
    while (running())
        ;
    verify_areas(&areas, (unsigned long)private, (unsigned long)private + SIZE);
    verify_fill(private, SIZE, 1, "private huge pages");
    verify_fill(shared, SIZE / 2, 2, "shared huge pages");
    verify_zero(shared + SIZE / 2, SIZE / 2, "untouched huge page");
    verify_zero(of_file, SIZE / 2, "untouched huge page of a memory file");
    verify_fill(of_file + SIZE / 2, SIZE / 2, 3, "memory file of huge pages");
    EQUAL(fcntl(file, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW, "seals of a memory file of huge pages");
    of_file[0] = 7;
    char seen = 0;
    EXPECT(pread(file, &seen, 1, 0));
    EQUAL(seen, 7, "the mapping and the descriptor are one file");
    return end();
}
