/* workload: hugetlb; kind: memory; user: root; refusal: allowed; about: huge pages of the pool, private and shared */
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
    return end();
}
