/* workload: keyring; kind: rights; user: any; refusal: allowed; about: session, process and thread keyrings with keys of a user */
#include "workload.h"
#include <linux/keyctl.h>

static long add(const char *name, const char *value, long ring)
{
    return syscall(SYS_add_key, "user", name, value, strlen(value), ring);
}

static void verify_key(const char *name, const char *value, long ring, const char *what)
{
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, ring, "user", name, 0);
    char text[64] = "";
    if (key < 0 || syscall(SYS_keyctl, KEYCTL_READ, key, text, sizeof text - 1) < 0)
        fail("%s: key %s: %s", what, name, strerror(errno));
    else
        verify_text(text, value, what);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char *name = formatted("session of %d", getpid());
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) < 0)
        skip("keyrings: %s", strerror(errno));
    MUST(add("in session", "session value", KEY_SPEC_SESSION_KEYRING));
    MUST(add("in process", "process value", KEY_SPEC_PROCESS_KEYRING));
    MUST(add("in thread", "thread value", KEY_SPEC_THREAD_KEYRING));
    char description[256] = "", description_now[256] = "";
    MUST(syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, description, sizeof description - 1));
    ready();
    while (running())
        ;
    EXPECT(syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, description_now, sizeof description_now - 1));
    verify_text(description_now, description, "session keyring");
    verify_key("in session", "session value", KEY_SPEC_SESSION_KEYRING, "session keyring");
    verify_key("in process", "process value", KEY_SPEC_PROCESS_KEYRING, "process keyring");
    verify_key("in thread", "thread value", KEY_SPEC_THREAD_KEYRING, "thread keyring");
    return end();
}
