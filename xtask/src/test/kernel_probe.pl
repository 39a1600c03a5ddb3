# Tries the system calls that the engine cannot do without, on itself and on children of its own.
# Runs as the first process of a PID namespace, so that nothing outlives it and no PID is taken.
# Numbers are those of x86_64. No signal is ever sent but to a child whose PID is known to be positive.
use strict;
use POSIX ();
$| = 1;

sub verdict { my ($name, $is_well, $error) = @_; print "$name\t", ($is_well ? "ok" : $error), "\n"; }

# As a number: perl hands a scalar that was ever a string to the kernel as a pointer.
my $own = $$ + 0;
my $pidfd = syscall(434, $own, 0);
verdict("pidfd_open", $pidfd >= 0, "$!");
my $copy = syscall(438, $pidfd, 0, 0);
verdict("pidfd_getfd", $copy >= 0, "$!");
verdict("kcmp", syscall(312, $own, $own, 0, 0, 0) == 0, "$!");

# clone3 with a PID of our choice.
my $wanted = 77;
my $tids = pack("l", $wanted);
my $arguments = pack("Q11", 0, 0, 0, 0, 17, 0, 0, 0, unpack("Q", pack("P", $tids)), 1, 0);
my $made = syscall(435, $arguments, length $arguments);
syscall(60, 0) if $made == 0;
verdict("clone3 with set_tid", $made == $wanted, "$!");
waitpid($made, 0) if $made > 0;

# Seize a child, stop it, and ask for its rseq registration.
my $child = fork;
if (defined $child && $child == 0) { sleep 60; POSIX::_exit(0); }
if (defined $child && $child > 1) {
    my $seized = syscall(101, 0x4206, $child, 0, 0);
    verdict("PTRACE_SEIZE", $seized == 0, "$!");
    my $stopped = $seized == 0 && syscall(101, 0x4207, $child, 0, 0) == 0 && syscall(61, $child, 0, 0x40000000, 0) == $child;
    verdict("PTRACE_INTERRUPT", $stopped, "$!");
    my $rseq = "\0" x 24;
    verdict("PTRACE_GET_RSEQ_CONFIGURATION", syscall(101, 0x420f, $child, 24, $rseq) >= 0, "$!");
    kill 'KILL', $child;
    waitpid($child, 0);
} else {
    verdict("fork", 0, "$!");
}
verdict("end", 1, "");
