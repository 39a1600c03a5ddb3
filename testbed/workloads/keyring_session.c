/* workload: keyring_session; kind: rights; user: any; refusal: allowed; about: a key in an unnamed session keyring, and no other keyring */
#include "workload.h"
#include <linux/keyctl.h>

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
        skip("keyrings: %s", strerror(errno));
    MUST(syscall(SYS_add_key, "user", "in session", "session value", 13, KEY_SPEC_SESSION_KEYRING));
    ready();
    while (running())
        ;
    char text[64] = "";
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "in session", 0);
    if (key < 0 || syscall(SYS_keyctl, KEYCTL_READ, key, text, sizeof text - 1) < 0)
        fail("key of the session: %s", strerror(errno));
    else
        verify_text(text, "session value", "key of the session");
    return end();
}
