/* BOARD COUNT BYTES: so many processes, the first one included, that share so much memory; the others count in it. */
#include "board.h"

struct place {
    _Atomic uint64_t rounds;
    uint64_t other[511];
};

int main(int argc, char **argv)
{
    begin(argc, argv);
    size_t count = argc > 3 ? strtoull(argv[2], NULL, 10) - 1 : 0, bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    EXPECT(bytes >= (count + 1) * sizeof(struct place), "too little memory");
    struct place *places = MUST(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    _Atomic uint64_t *over = &places[count].rounds;
    void *rest = &places[count + 1];
    size_t rest_bytes = bytes - (count + 1) * sizeof(struct place);
    fill(rest, rest_bytes, 2);
    for (size_t i = 0; i < count; i++)
        if (MUST(fork()) == 0) {
            for (; !*over; nap())
                places[i].rounds++;
            verify_fill(rest, rest_bytes, 2, "shared memory in a child");
            _exit(0);
        }
    for (size_t i = 0; i < count; i++)
        while (places[i].rounds == 0)
            nap();
    work();
    for (size_t i = 0; i < count; i++) {
        uint64_t now = places[i].rounds;
        for (int patience = 2000; places[i].rounds == now; nap())
            EXPECT(patience--, "process %zu does not go on", i);
    }
    *over = 1;
    for (size_t i = 0; i < count; i++) {
        int status;
        MUST(wait(&status));
        EXPECT(status == 0, "a child ended with status 0x%x", status);
    }
    verify_fill(rest, rest_bytes, 2, "shared memory");
    return end();
}
