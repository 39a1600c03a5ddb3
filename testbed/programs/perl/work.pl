# A parent hands numbers to four workers over socket pairs; each answers with a digest; an alarm and a locked file go on beside.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use Fcntl qw(:flock SEEK_SET);
use IO::Handle;
use IO::Select;
use Socket;
use Time::HiRes qw(ualarm);

my ($rounds, $workers, $ticks) = (60, 4, 0);
$SIG{ALRM} = sub { $ticks++ };
ualarm(20_000, 20_000);

open(my $locked, '+>', 'locked') or die "locked: $!";
flock($locked, LOCK_EX) or die "flock: $!";

my (@sockets, @children);
for my $worker (1 .. $workers) {
    socketpair(my $mine, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
    my $child = fork() // die "fork: $!";
    if ($child == 0) {
        ualarm(0, 0);
        close($_) for $mine, @sockets;
        while (defined(my $line = <$theirs>)) {
            chomp $line;
            my $text = $line;
            $text = sha256_hex($text . $worker) for 1 .. 8000;
            $theirs->printflush("$line $text\n");
        }
        exit($worker);
    }
    close($theirs);
    push @sockets, $mine;
    push @children, $child;
}

my @answers;
for my $round (1 .. $rounds) {
    $_->printflush("$round\n") for @sockets;
    for my $socket (@sockets) {
        my $line = <$socket>;
        push @answers, $line;
        print {$locked} $line;
    }
    open(my $progress, '>>', 'progress') or die "progress: $!";
    print {$progress} '.';
    close($progress);
}
close($_) for @sockets;
my @statuses = map { waitpid($_, 0); $? >> 8 } @children;
ualarm(0, 0);

my %seen;
for (@answers) { $seen{$1}++ if /^(\d+) ([0-9a-f]{64})$/ }
print "rounds ", scalar(keys %seen), " each ", join(',', sort { $a <=> $b } values %seen), "\n";
print "statuses @statuses, ticks ", ($ticks > 5 ? 'enough' : $ticks), "\n";
$locked->flush;
seek($locked, 0, SEEK_SET);
local $/;
print sha256_hex(<$locked>), "\n";
open(my $again, '<', 'locked') or die "locked: $!";
print flock($again, LOCK_EX | LOCK_NB) ? "the lock is lost\n" : "the lock holds\n";
