#!/usr/bin/perl
# run.pl DAIR - what `make run` does: a cluster of three nodes on this machine, as three processes that
# find each other over the loopback and have a third of the work and little memory each; one question
# to one of them; the page stays up until Ctrl-C. Needs no rights, and no Perl but Debian's perl-base.
#
#   ONCE=1     leave after the answer     NODES=3   how many      MEMORY=8M   another memory for each
#   QUESTION=  another question           KEEP=1    keep the folder with logs
use strict;
use warnings;
use File::Temp qw(tempdir);
use IO::Socket::INET;
use POSIX ();

my $dair = shift // die "usage: run.pl DAIR\n";
my $n = $ENV{NODES} || 3;
my $question = $ENV{QUESTION} || 'What happens when a node dies?';
my $patience = 60;                                                # seconds for anything
my $dir = tempdir('dair-run-XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{KEEP});
my (@node, $stopped);                                             # {name, pid, port, cluster, log, url}
my $main = $$;

$| = 1;
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub { $stopped = shift };
$SIG{PIPE} = 'IGNORE';

my $start = (POSIX::times())[0];
sub seconds { return ((POSIX::times())[0] - $start) / POSIX::sysconf(&POSIX::_SC_CLK_TCK) }
sub say_so { printf "%6.1f s  %s\n", seconds(), join '', @_ }
sub nap { select undef, undef, undef, 0.05 }

sub lines_of { my $f = shift; open my $h, '<', $f or return; return <$h> }

# Ends with the last lines of the logs, which know why.
sub give_up {
    my $why = shift;
    print "\n$why\n";
    for my $k (@node) {
        my @last = lines_of($k->{log});
        @last = @last[-12 .. -1] if @last > 12;
        print "--- node $k->{name}, last lines of its log:\n", map { "    $_" } @last;
    }
    exit 1;
}

# The nodes are told to leave, and made to if they do not; only our own children, by their numbers.
sub stop_all {
    my @left = grep { $_->{pid} } @node;
    kill 'TERM', map { $_->{pid} } @left;
    for (my $until = seconds() + 12; @left; nap()) {
        kill 'KILL', map { $_->{pid} } @left if seconds() > $until;
        for my $k (@left) { $k->{pid} = 0 if waitpid($k->{pid}, POSIX::WNOHANG()) }
        @left = grep { $_->{pid} } @left;
    }
}
END { if ($$ == $main) { my $status = $?; local $?; stop_all(); $? = $status } }

sub check_stop { exit 130 if $stopped }

# A node that has ended is an event: its status, once.
sub gone {
    my $k = shift;
    return $k->{gone} if !$k->{pid} || waitpid($k->{pid}, POSIX::WNOHANG()) != $k->{pid};
    $k->{pid} = 0;
    return $k->{gone} = $? & 127 ? 'was ended by signal ' . ($? & 127) : 'ended with status ' . ($? >> 8);
}

my %taken;
sub free_port {
    for (my $port = shift; $port < 65536; $port++) {
        next if $taken{$port};
        my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => $port, Listen => 1, ReuseAddr => 1) or next;
        close $s;
        $taken{$port} = 1;
        return $port;
    }
    give_up("no free port was found on this machine");
}

# So much that a node can work, and so little that it keeps less than half of its third of the model:
# what the program itself takes differs between machines.
sub tight_memory {
    my ($program) = qx("$dair" plan --json --memory 64M) =~ /"program_bytes":(\d+)/;
    give_up("dair plan does not say what the program takes (status $?)") if !$program;
    return int($program / 1024 + 6400) . 'K';
}

sub make_config {
    my $memory = shift;
    my $key = qx("$dair" keygen);
    give_up("dair keygen made no key (status $?)") if $? || $key !~ /\S/;
    chomp $key;
    umask 077;
    open my $h, '>', "$dir/dair.conf" or give_up("cannot write $dir/dair.conf: $!");
    my $cores = () = map { /^processor\s*:/ } lines_of('/proc/cpuinfo');
    my $threads = $cores > $n ? int($cores / $n) : 1;
    print $h "# made by `make run`: the same for all nodes\ncluster_key = $key\nmemory = $memory\n",
      "threads = $threads\nshare = even\ninterface = lo\n";
    close $h or give_up("cannot write $dir/dair.conf: $!");
}

sub start_node {
    my $i = shift;
    my %k = (name => $i, log => "$dir/node$i.log", port => free_port(8080), cluster => free_port(9998));
    $k{url} = "http://127.0.0.1:$k{port}/";
    my @words = ($dair, 'node', '--config', "$dir/dair.conf", '--state', "$dir/state$i", '--port', $k{port},
        '--cluster-port', $k{cluster});
    $k{pid} = fork // give_up("cannot start a process: $!");
    if (!$k{pid}) {
        setpgrp 0, 0;    # Ctrl-C is for us, who then tell them
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
        open STDIN,  '<',  '/dev/null';
        open STDOUT, '>',  $k{log};
        open STDERR, '>&', \*STDOUT;
        exec { $dair } @words or POSIX::_exit(127);
    }
    push @node, \%k;
}

# Until each node says that all serve together.
sub wait_ready {
    my %seen;
    while (keys %seen < @node) {
        check_stop();
        for my $k (grep { !$seen{$_->{name}} } @node) {
            my $gone = gone($k);
            my @log = lines_of($k->{log});
            my ($ready) = map { /READY: ((\d+) nodes? .*)/ && $2 >= $n ? $1 : () } @log;
            if ($ready) {
                $seen{$k->{name}} = 1;
                say_so("node $k->{name}: $ready");
            } elsif ($gone) {
                give_up("node $k->{name} $gone");
            }
        }
        give_up("the nodes did not find each other within $patience s") if seconds() > $patience;
        nap();
    }
}

sub quoted {
    my $s = shift;
    $s =~ s/([\x00-\x1f"\\])/sprintf '\\u%04x', ord $1/ge;
    return "\"$s\"";
}

my %escape = (n => "\n", t => "\t", r => "\r", b => "\b", f => "\f");
sub unquoted {
    my $s = shift;
    $s =~ s/\\(?:u([0-9a-fA-F]{4})|(.))/defined $1 ? chr hex $1 : $escape{$2} \/\/ $2/ge;
    utf8::encode($s) if $s =~ /[^\x00-\xff]/;
    return $s;
}

# POST to a node, its event stream to STDOUT as it comes. Returns the text and the seconds to its first
# and last piece.
sub ask {
    my $k = shift;
    my $body = sprintf '{"prompt":%s,"max_tokens":128,"temperature":0,"stream":true}',
      quoted("<|im_start|>user\n$question<|im_end|>\n<|im_start|>assistant\n");
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $k->{port}, Timeout => 5)
      or give_up("node $k->{name} does not answer at $k->{url}: $!");
    my $began = seconds();
    print $s "POST /v1/completions HTTP/1.0\r\nHost: 127.0.0.1:$k->{port}\r\nContent-Type: application/json\r\n",
      "Content-Length: ", length $body, "\r\n\r\n$body";
    my ($got, $text, $first, $end) = ('', '');
    my $limit = seconds() + $patience;
    while (!$end) {
        check_stop();
        vec(my $ready = '', fileno $s, 1) = 1;
        give_up("the answer took longer than $patience s") if seconds() > $limit;
        next if select($ready, undef, undef, 0.2) <= 0;
        $end = !sysread $s, $got, 65536, length $got;
        if (!defined $first && $got =~ /^HTTP\S* (\d+)/ && ($1 != 200 || $end)) {
            give_up("node $k->{name} refused the question: $got") if $end;
            next;
        }
        while ($got =~ s/^data: (.*?)\r?\n//m) {
            my $data = $1;
            $end = 1 if $data =~ /^\[DONE\]/;
            give_up("the answer broke off: $data") if $data =~ /^\{"error"/;
            my ($piece) = $data =~ /"text":\s*"((?:[^"\\]|\\.)*)"/ or next;
            $piece = unquoted($piece);
            next if $piece eq '';
            $first //= seconds();
            $text .= $piece;
            print $piece;
        }
    }
    return ($text, ($first // seconds()) - $began, seconds() - $began);
}

# ---- the demonstration
my $memory = $ENV{MEMORY} || tight_memory();
say_so("starting $n nodes with $memory of memory each; they are to share the model that is in dair, 2.7 MiB");
make_config($memory);
start_node($_) for 1 .. $n;
wait_ready();
my $asked = $node[-1];
say_so("asking node $asked->{name} by POST $asked->{url}v1/completions");
print "\n> $question\n\n";
my ($text, $first, $all) = ask($asked);
give_up('the answer is empty') if $text !~ /\S/;
print "\n\n";
say_so(sprintf 'answered: the first piece after %.2f s, all %d characters after %.2f s', $first, length $text, $all);
my $status = qx("$dair" status --host 127.0.0.1:$asked->{port});
give_up("dair status failed (status $?)") if $?;
print "\n$status\n";
say_so('the page of each node: ', join ' ', map { $_->{url} } @node);
exit 0 if $ENV{ONCE};
say_so('Ctrl-C ends it; `kill ' . $node[0]{pid} . '` shows what the others do when a node leaves');
while (!$stopped) {
    for my $k (grep { $_->{pid} } @node) {
        my $gone = gone($k) or next;
        say_so("node $k->{name} $gone; the others go on");
    }
    give_up('no node is left') if !grep { $_->{pid} } @node;
    nap();
}
print "\n";
say_so('stopping');
exit 0;
