/* workload: threads_1000; kind: task; user: any; about: 1,000 threads, sleeping, yielding and counting, with names and stacks of their own */
#define THREADS 1000
#include "threads_64.c"
