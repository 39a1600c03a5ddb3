/* workload: keyring_empty; kind: rights; user: any; about: keyrings that a login makes, and empty ones: they are nobody's loss, and take keys afterwards */
#include "workload.h"
#include <linux/keyctl.h>

static void try_key(long ring, const char *what)
{
    char text[64] = "";
    long key = syscall(SYS_add_key, "user", what, "value", 5, ring);
    CHECK(key > 0, "adding a key to the %s keyring: %s", what, strerror(errno));
    CHECK(syscall(SYS_keyctl, KEYCTL_READ, key, text, sizeof text - 1) == 5, "reading a key of the %s keyring: %s", what, strerror(errno));
    verify_text(text, "value", what);
    EXPECT(syscall(SYS_keyctl, KEYCTL_UNLINK, key, ring));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
        skip("keyrings: %s", strerror(errno));
    MUST(syscall(SYS_keyctl, KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING));
    MUST(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1));
    MUST(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 1));
    ready();
    while (running())
        ;
    try_key(KEY_SPEC_PROCESS_KEYRING, "process");
    try_key(KEY_SPEC_THREAD_KEYRING, "thread");
    return end();
}
