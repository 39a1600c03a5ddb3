/* The lightest process: a loop that asks the kernel who it is. */
#include "board.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    work();
    return end();
}
