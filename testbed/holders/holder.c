/* Holds one object that a move refuses, and beats. holder REPORT OBJECT: `holder REPORT list` names them all.
 *
 * The report gets READY once the object is held, or SKIP with the reason why this machine cannot have it. A process that is
 * not the one that was started says its number first: PROCESS n. Two threads tell whether anybody froze it: `witness` sleeps in
 * one system call for ever, and a stop of any kind would wake it and be counted in its context switches; `heart` counts up.
 */
#include "../workloads/workload.h"
#include "objects.h"

static void *witness(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "witness");
    while (pause())
        ;
    return NULL;
}

static void *heart(void *beats)
{
    prctl(PR_SET_NAME, "heart");
    int fd = MUST(open(beats, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    for (unsigned long number = 1;; number++) {
        char line[32];
        int length = snprintf(line, sizeof line, "%020lu\n", number);
        if (pwrite(fd, line, (size_t)length, 0) != length)
            die("a beat: %s", strerror(errno));
        usleep(2000);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    begin(argc, argv);
    for (size_t i = 0; i < COUNT(objects); i++) {
        if (strcmp(argv[2], "list") == 0) {
            char *line = formatted("%s\n", objects[i].name);
            report(line);
            free(line);
        } else if (strcmp(argv[2], objects[i].name) == 0) {
            objects[i].hold();
            thread(heart, scratch("beats"));
            thread(witness, NULL);
            report("READY\n");
            for (;;)
                pause();
        }
    }
    return strcmp(argv[2], "list") == 0 ? 0 : 2;
}
