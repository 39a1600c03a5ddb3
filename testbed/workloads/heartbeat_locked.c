/* workload: heartbeat_locked; kind: process; user: any; about: the heartbeat's processes, each with a lock of a file that every host sees */
#define LOCKED
#include "heartbeat.c"
