/* workload: pty; kind: terminal; user: any; about: a terminal pair inside the tree: settings, size, unread bytes both ways, session, foreground group, hangup */
#include "workload.h"
#include <termios.h>

static int master;
static char *name;
static atomic_int *step;

static void shell(void *unused)
{
    (void)unused;
    close(master);
    pid_t session = MUST(setsid());
    int fd = MUST(open(name, O_RDWR));
    MUST(ioctl(fd, TIOCSCTTY, 0));
    pid_t job = fork();
    if (job == 0) {
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        MUST(tcsetpgrp(fd, getpid()));
        *step = 1;
        while (running())
            ;
        EQUAL(tcgetpgrp(fd), getpid(), "foreground group");
        EQUAL(tcgetsid(fd), session, "session of the terminal");
        char text[64] = "";
        struct pollfd set = {fd, POLLIN, 0};
        EQUAL(poll(&set, 1, 2000), 1, "poll for a line");
        fcntl(fd, F_SETFL, O_NONBLOCK);
        ssize_t got = read(fd, text, 63);
        EQUAL(got, 10, "read of a line");
        verify_text(text, "typed line", "what was typed before the move");
        EQUAL(write(fd, "answer\n", 7), 7, "write");
        int own = EXPECT(open("/dev/tty", O_RDWR | O_CLOEXEC));
        EQUAL(tcgetpgrp(own), getpid(), "foreground group of /dev/tty");
        _exit(failures ? 1 : 0);
    }
    while (running())
        ;
    EQUAL(tcgetpgrp(fd), job, "foreground group seen by the leader");
    EQUAL(tcgetsid(fd), session, "session of the terminal");
    stop_and_collect(job);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    step = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    master = MUST(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    MUST(grantpt(master));
    MUST(unlockpt(master));
    name = strdup(ptsname(master));
    int keep = MUST(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
    struct termios settings, now;
    MUST(tcgetattr(keep, &settings));
    settings.c_lflag &= (tcflag_t) ~(ECHO | ICANON);
    settings.c_cc[VMIN] = 10;
    settings.c_cc[VINTR] = 5;
    settings.c_oflag &= (tcflag_t)~OPOST;
    settings.c_iflag |= IUTF8;
    MUST(tcsetattr(keep, TCSANOW, &settings));
    struct winsize size = {33, 101, 7, 9}, size_now;
    MUST(ioctl(master, TIOCSWINSZ, &size));
    int packet = 0;
    pid_t pid = child(shell, NULL);
    while (!*step)
        sched_yield();
    EQUAL(write(master, "typed line", 10), 10, "typing");
    EQUAL(write(keep, "shown\n", 6), 6, "showing");
    int number = -1;
    MUST(ioctl(master, TIOCGPTN, &number));
    ready();
    while (running())
        ;
    int number_now = -1;
    EXPECT(ioctl(master, TIOCGPTN, &number_now));
    EQUAL(number_now, number, "number of the terminal");
    char *name_now = descriptor_target(keep);
    verify_text(name_now, name, "name of the terminal");
    memset(&now, 0, sizeof now);
    EXPECT(tcgetattr(keep, &now));
    EQUAL(now.c_iflag, settings.c_iflag, "input settings");
    EQUAL(now.c_oflag, settings.c_oflag, "output settings");
    EQUAL(now.c_cflag, settings.c_cflag, "control settings");
    EQUAL(now.c_lflag, settings.c_lflag, "local settings");
    CHECK(memcmp(now.c_cc, settings.c_cc, NCCS) == 0, "control characters differ");
    EXPECT(ioctl(keep, TIOCGWINSZ, &size_now));
    CHECK(memcmp(&size, &size_now, sizeof size) == 0, "size: %d x %d", size_now.ws_row, size_now.ws_col);
    EXPECT(ioctl(master, TIOCGPKT, &packet));
    EQUAL(packet, 0, "packet mode");
    char text[64] = "";
    EXPECT(fcntl(master, F_SETFL, O_NONBLOCK));
    EQUAL(read(master, text, 63), 6, "read of what was shown");
    verify_text(text, "shown\n", "what was shown before the move");
    stop_and_collect(pid);
    memset(text, 0, sizeof text);
    EQUAL(read(master, text, 63), 7, "read of the answer");
    verify_text(text, "answer\n", "answer");
    return end();
}
