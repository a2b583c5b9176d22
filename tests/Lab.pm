# Lab.pm - laboratories for clusters: nodes with a network of their own, joined by a switch, and
# what goes wrong with them: ends, stalls, pulled cables, partitions, slow and lossy lines.
#
#   use Lab 'isolated';                       # this script goes on in namespaces of its own, or is skipped
#   my $lab = Lab->new(nodes => 3);           # nodes 1..3: eth0, 10.77.0.1.., fe80::..
#   my $p = $lab->start(2, ['dair', 'node']); # {pid, node, out, err}: out and err are files
#   await { $lab->http(2, GET => '/health')->{status} == 200 } 10, 'node 2 answers';
#
# `isolated` runs the script again under unshare(1), as PID 1 of a PID namespace, with mounts and
# network of its own. So nothing can be left behind: when the script ends, however it ends, the
# kernel ends every process of the lab, and with the last one go its networks. It needs root or
# user namespaces. Two runs at once cannot meet; names need not be unique.
#
# Lab->new(nodes => N, on => 'lo') needs neither root nor `isolated`: every node is a process of
# this machine with other ports (`port`); no cables there, so no faults of cables.
#
# Partitions and one-way losses are cBPF filters (tc clsact) on the switch's ports, by the sender's
# MAC address; rates are tbf; delay and loss are lab_relay.c, put into the cable when first wanted.
package Lab;
use strict;
use warnings;
use Carp qw(croak);
use Exporter ();
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use File::Temp qw(tempdir);
use IO::Handle;
use POSIX qw(:sys_wait_h :errno_h);
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY pack_sockaddr_in6 inet_pton);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our @ISA    = 'Exporter';
our @EXPORT = qw(await now gather);

my ($machine) = (POSIX::uname())[4];
my %number = (    # system calls that perl has no name for
    x86_64  => {setns => 308, prctl => 157},
    aarch64 => {setns => 268, prctl => 167},
);
my $nr = $number{$machine};

sub now { return clock_gettime(CLOCK_MONOTONIC) }

# await { CONDITION } SECONDS, WHAT: its true value; dies at the deadline. A condition that dies is
# not yet true, and what it last died of is told.
sub await(&$;$) {
    my ($condition, $seconds, $what) = @_;
    my $end = now() + $seconds;
    for (;;) {
        my $value = eval { $condition->() };
        return $value if $value;
        croak 'not within ' . $seconds . ' s: ' . ($what // 'a condition') . ($@ ? " (last: $@)" : '') if now() > $end;
        select undef, undef, undef, 0.02;
    }
}

# ---- isolation

my @tool_path = qw(/usr/sbin /sbin /usr/bin /bin /usr/local/sbin /usr/local/bin);
sub tool { my $name = shift; return (grep { -x } map { "$_/$name" } @tool_path, split /:/, $ENV{PATH} // '')[0] }
sub unshare_words {
    return (tool('unshare'), ($> ? '--map-root-user' : ()), qw(--net --mount --pid --fork --kill-child --mount-proc));
}

# Why there can be no laboratory here; '' if there can.
sub why_not {
    return "no system call numbers for $machine" unless $nr;
    for (qw(ip tc unshare)) { return "there is no $_ (iproute2, util-linux)" unless tool($_) }
    return '' if inside();
    my $said = command_says(unshare_words(), tool('ip'), 'link', 'add', 'lab-a', 'type', 'veth', 'peer', 'name', 'lab-b');
    return $said eq '' ? '' : ($> ? 'not root, and ' : '') . "no namespaces here: $said";
}

# Runs it; '' if it succeeded, else what it said.
sub command_says {
    my @words = @_;
    my $pid = open(my $pipe, '-|') // die "fork: $!";
    if (!$pid) {
        open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
        open STDIN, '<', '/dev/null' or POSIX::_exit(126);
        exec { $words[0] } @words or POSIX::_exit(127);
    }
    my $said = do { local $/; <$pipe> } // '';
    close $pipe and return '';
    $said =~ s/\s+\z//;
    return $said ne '' ? $said : "$words[0] ended with status " . ($? >> 8);
}

# The variable alone could be inherited by a stranger: it names the network that was left.
sub inside { return ($ENV{DAIR_LAB} // '') ne '' && $ENV{DAIR_LAB} ne (readlink('/proc/self/ns/net') // '') }

sub import {
    my ($class, @words) = @_;
    isolate() if grep { $_ eq 'isolated' } @words;
    $class->export_to_level(1, $class, grep { $_ ne 'isolated' } @words);
}

sub isolate {
    if (inside()) {
        # PID 1 is deaf to a signal that it has no handler for.
        for (qw(INT TERM HUP)) { $SIG{$_} = sub { exit 130 } unless ref $SIG{$_} }
        my $said = command_says(tool('mount'), '-t', 'tmpfs', '-o', 'mode=755', 'lab', '/run');    # /run/netns for `ip`
        die "mount: $said\n" if $said;
        return;
    }
    if (my $why = why_not()) {
        print "1..0 # SKIP $why\n";
        exit 0;
    }
    $ENV{DAIR_LAB} = readlink '/proc/self/ns/net';
    exec unshare_words(), $^X, (map { "-I$_" } @INC), $0, @ARGV;
    die "unshare: $!\n";
}

# ---- the laboratory
my $labs = 0;

# new(nodes => N, on => 'switch' or 'lo', dir => for output files, six => true: nodes know no IPv4, not even
# 127.0.0.1, and have fd77::N beside their link-local address)
sub new {
    my ($class, %o) = @_;
    my $self = bless {n => $o{nodes} // 3, lo => ($o{on} // '') eq 'lo', dir => $o{dir} // tempdir(CLEANUP => 1), six => $o{six},
        running => {}, owner => $$, serial => ++$labs, begun => 0, blocked => {}, relay => {}}, $class;
    return $self if $self->{lo};
    croak "use Lab 'isolated' first" unless inside();
    open $self->{home}, '<', '/proc/self/ns/net' or die "/proc/self/ns/net: $!";
    my @names = ($self->switch, map { $self->net($_) } $self->nodes);
    $self->ip('', map { "netns add $_" } @names);
    for (@names) { open $self->{ns}{$_}, '<', "/run/netns/$_" or die "/run/netns/$_: $!" }
    # Addresses are there at once (no duplicate detection), and the switch is none of them.
    for (@names) { $self->in($_, sub { sysctl('ipv6/conf/default/accept_dad', 0); sysctl('ipv6/conf/default/router_solicitations', 0) }) }
    # A switch knows no IP: no addresses, and no firewall for what it passes on.
    $self->in($self->switch, sub {
        sysctl('ipv6/conf/default/disable_ipv6', 1);
        for (qw(iptables ip6tables arptables)) { sysctl("bridge/bridge-nf-call-$_", 0) if -e "/proc/sys/net/bridge/bridge-nf-call-$_" }
    });
    # Multicast goes to every port: a switch that snoops and has no querier is another test.
    $self->ip($self->switch, 'link add br0 type bridge forward_delay 0 mcast_snooping 0', 'link set dev br0 up',
        'link set dev lo up');
    for my $i (1 .. $self->{n}) {
        $self->ip($self->switch, "link add p$i type veth peer name eth0 netns " . $self->net($i));
        $self->ip($self->net($i), 'link set dev eth0 address ' . $self->mac($i), 'link set dev lo up', 'link set dev eth0 up',
            $o{six} ? ('address del 127.0.0.1/8 dev lo', 'address add ' . $self->address($i) . '/64 dev eth0 nodad')
            : ('address add ' . $self->address($i) . '/24 brd + dev eth0', 'route add default dev eth0 metric 9999'));
        $self->ip($self->switch, "link set dev p$i master br0");
        $self->plug($i);
    }
    # Neighbours are known for good: else what is cut one way would be cut both ways, for want of ARP.
    for my $i (1 .. $self->{n}) {
        $self->ip($self->net($i), map { my $to = $_; map { "neigh replace $_ lladdr " . $self->mac($to) . ' dev eth0 nud permanent' }
            ($self->{six} ? () : $self->address($to)), $self->address6($to) } grep { $_ != $i } 1 .. $self->{n});
        await { -1 < index $self->ip($self->net($i), 'address show dev eth0 scope link'), 'fe80' } 5, "node $i has its link-local address";
    }
    return $self;
}

# Names of network namespaces: of the switch, of node I.
sub switch { return "lab$_[0]{serial}-switch" }
sub net { my ($self, $i) = @_; return "lab$self->{serial}-n$i" }

sub nodes { return 1 .. $_[0]{n} }
sub mac { my ($self, $i) = @_; return sprintf '02:da:00:00:%02x:%02x', $i >> 8, $i & 255 }
sub address { my ($self, $i) = @_; return $self->{six} ? sprintf 'fd77::%x', $i : $self->{lo} ? '127.0.0.1' : '10.77.' . ($i >> 8) . '.' . ($i & 255) }
sub address6 { my ($self, $i) = @_; return sprintf 'fe80::da:ff:fe00:%x', $i }
sub interface { return $_[0]{lo} ? 'lo' : 'eth0' }

# The port of node I that is PORT where each node has its own addresses; on lo a free one.
sub port {
    my ($self, $i, $port) = @_;
    return $port unless $self->{lo};
    return $self->{port}{"$i $port"} //= do {
        my $free;
        until ($free) {
            my $try = 20000 + int rand 12000;    # below what the kernel gives to clients
            next if grep { defined && $_ == $try } values %{$self->{port}};
            socket my $s, AF_INET, SOCK_STREAM, 0 or die "socket: $!";
            $free = $try if bind $s, pack_sockaddr_in($try, INADDR_ANY);
        }
        $free;
    };
}

sub sysctl { my ($name, $value) = @_; open my $h, '>', "/proc/sys/net/$name" or return; print $h "$value\n"; close $h }

# ip and tc commands, a batch each, in the named namespace ('' for the script's own).
sub batch {
    my ($self, $program, $ns, @lines) = @_;
    my ($file, $out) = ("$self->{dir}/batch", "$self->{dir}/batch-says");
    open my $h, '>', $file or die "$file: $!";
    print $h "$_\n" for @lines;
    close $h or die "$file: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDOUT, '>', $out or POSIX::_exit(126);
        open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
        exec tool($program), ($ns ne '' ? ('-n', $ns) : ()), '-batch', $file or POSIX::_exit(127);
    }
    1 while waitpid($pid, 0) < 0 && $!{EINTR};
    my $status = $?;
    open $h, '<', $out or die "$out: $!";
    my $said = do { local $/; <$h> } // '';
    croak "$program $ns: @lines: $said" if $status;
    return $said;
}
sub ip { my ($self, @rest) = @_; return $self->batch('ip', @rest) }
sub tc { my ($self, @rest) = @_; return $self->batch('tc', @rest) }

# in(NAMESPACE, CODE): CODE with this process in that network. What it opens stays there: a socket
# belongs to the network it was made in.
sub in {
    my ($self, $ns, $code) = @_;
    return $code->() if $self->{lo};
    my $net = 0x40000000;    # CLONE_NEWNET
    syscall($nr->{setns}, fileno $self->{ns}{$ns}, $net) == 0 or die "setns $ns: $!";
    my @value = eval { wantarray ? $code->() : scalar $code->() };
    my $error = $@;
    syscall($nr->{setns}, fileno $self->{home}, $net) == 0 or die "setns home: $!";
    die $error if $error;
    return wantarray ? @value : $value[0];
}
sub on { my ($self, $i, $code) = @_; return $self->in($self->net($i), $code) }

# ---- processes

# start(NODE, WORDS, env => {}): {pid, node, out, err}; out and err name files. It ends with the
# script at the latest.
sub start {
    my ($self, $i, $words, %o) = @_;
    my $base = "$self->{dir}/n$i-" . ++$self->{begun};
    my @words = ($self->{lo} ? () : (tool('ip'), 'netns', 'exec', $self->net($i)), @$words);
    my $parent = $$;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        setpgrp 0, 0;
        syscall($nr->{prctl}, 1, 9, 0, 0, 0) if $nr;    # PR_SET_PDEATHSIG, KILL
        POSIX::_exit(126) if getppid() != $parent;
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
        $ENV{$_} = $o{env}{$_} for keys %{$o{env} // {}};
        open STDIN,  '<', '/dev/null'  or POSIX::_exit(126);
        open STDOUT, '>', "$base.out"  or POSIX::_exit(126);
        open STDERR, '>', "$base.err"  or POSIX::_exit(126);
        exec { $words[0] } @words or POSIX::_exit(127);
    }
    setpgrp $pid, $pid;
    my $p = {pid => $pid, node => $i, words => "@$words", out => "$base.out", err => "$base.err", begun => now()};
    $self->{running}{$pid} = $p;
    return $p;
}

# Its exit status, -N after signal N, undef while it runs.
sub status {
    my ($self, $p) = @_;
    if (!defined $p->{status} && waitpid($p->{pid}, WNOHANG) == $p->{pid}) {
        $p->{status} = WIFSIGNALED($?) ? -WTERMSIG($?) : WEXITSTATUS($?);
        $p->{ended} = now();
        delete $self->{running}{$p->{pid}};
    }
    return $p->{status};
}
sub is_running { my ($self, $p) = @_; return !defined $self->status($p) }
sub signal { my ($self, $p, $name) = @_; return defined $self->status($p) ? 0 : kill $name, -$p->{pid} }

# stop(P, SIGNAL, SECONDS): asks it to end (TERM), at the limit (10 s) with KILL; its status.
sub stop {
    my ($self, $p, $name, $seconds) = @_;
    $self->signal($p, $name // 'TERM');
    my $end = eval { await { defined $self->status($p) } $seconds // 10, 'it ends'; 1 };
    if (!$end) {
        $p->{hangs} = 1;
        $self->signal($p, 'KILL');
        await { defined $self->status($p) } 30, "the end of process $p->{pid}";
    }
    return $p->{status};
}
sub kill_now { my ($self, $p) = @_; return $self->stop($p, 'KILL', 30) }
sub err { my ($self, $p) = @_; return slurp($p->{err}) }
sub out { my ($self, $p) = @_; return slurp($p->{out}) }
sub slurp { my $f = shift; open my $h, '<', $f or return ''; local $/; return scalar(<$h>) // '' }

sub end_all {
    my $self = shift;
    return if $$ != $self->{owner};
    local ($?, $!, $@);
    my @p = values %{$self->{running}};
    kill 'KILL', map { -$_->{pid} } @p if @p;
    for (@p) { waitpid $_->{pid}, 0 }
    $self->{running} = {};
}
sub DESTROY {
    my $self = shift;
    return if $$ != $self->{owner};
    $self->end_all();
    return if $self->{lo} || ${^GLOBAL_PHASE} eq 'DESTRUCT';
    close $_ for map { $_->{in} } values %{$self->{relay}};
    close $_ for values %{$self->{ns}};
    eval { $self->ip('', map { "netns del $_" } $self->switch, map { $self->net($_) } $self->nodes) };
}

# ---- faults of the line

# The cable of node I: pulled or in again. The kernel tells both ends of it when it comes to that, and what is
# sent before the port forwards is lost: it is done when both ends know.
sub pull { my ($self, $i) = @_; $self->ip($self->switch, "link set dev p$i down"); $self->both_ends($i, 'disabled', 'DOWN') }
sub plug { my ($self, $i) = @_; $self->ip($self->switch, "link set dev p$i up"); $self->both_ends($i, 'forwarding', 'UP') }

# Waits until the switch's port of node I and the node's interface are in those states.
sub both_ends {
    my ($self, $i, $port, $interface) = @_;
    await { $self->batch('bridge', $self->switch, "link show dev p$i") =~ /state $port\b/
        && $self->ip($self->net($i), 'link show dev eth0') =~ /state $interface\b/ } 10, "the cable of node $i: $port, $interface";
}

# cut_one_way([FROM..], [TO..]): frames of FROM no longer reach TO; the other way they do.
# cut([A..], [B..]): neither way. heal(): all as new.
sub cut_one_way {
    my ($self, $from, $to) = @_;
    my %changed;
    for my $t (@$to) { for my $f (grep { $_ != $t } @$from) { $self->{blocked}{$t}{$f} = $changed{$t} = 1 } }
    $self->filter($_) for keys %changed;
}
sub cut { my ($self, $a, $b) = @_; $self->cut_one_way($a, $b); $self->cut_one_way($b, $a) }
sub heal { my $self = shift; my @to = keys %{$self->{blocked}}; $self->{blocked} = {}; $self->filter($_) for @to }

# On the port towards node I: drops by the last two bytes of the sender's address.
sub filter {
    my ($self, $i) = @_;
    my @from = sort keys %{$self->{blocked}{$i} // {}};
    my $n = @from or return $self->tc($self->switch, "qdisc replace dev p$i clsact", "filter del dev p$i egress");
    $self->drop($i, '40 0 0 10', (map { "21 " . ($n - $_) . " 0 $from[$_]" } 0 .. $n - 1), '6 0 0 0', '6 0 0 2');
}

# What the program of classic BPF says, on the port towards node I: the one rule there.
sub drop {
    my ($self, $i, @op) = @_;
    $self->tc($self->switch, "qdisc replace dev p$i clsact",
        "filter replace dev p$i egress protocol all prio 1 handle 1 bpf da bytecode '" . join(',', scalar @op, @op) . "'");
}

# shut(NODE): it can begin connections, nobody can begin one to it: its firewall drops SYN without a word. Not
# together with cut(), and until heal() of a cut that was towards it.
sub shut {
    my ($self, $i) = @_;
    my @op = (
        '40 0 0 12',     # Ethernet's type
        '21 0 4 2048',   # IPv4:
        '48 0 0 23',     #   its protocol
        '21 0 8 6',      #   is TCP
        '48 0 0 47',     #   flags, behind a header of 20 bytes
        '5 0 0 4',
        '21 0 5 34525',  # IPv6:
        '48 0 0 20',     #   its next header
        '21 0 3 6',      #   is TCP
        '48 0 0 67',     #   flags
        '84 0 0 18',     # SYN and ACK
        '21 1 0 2',      # SYN alone
        '6 0 0 0', '6 0 0 2');
    $self->drop($i, @op);
}

# rate(NODE, '100mbit'): both ways; without a rate: as fast as it goes.
sub rate {
    my ($self, $i, $rate, %o) = @_;
    my @at = ([$self->net($i), 'eth0'], [$self->switch, "p$i"]);
    if (!defined $rate) {
        for (@at) { eval { $self->tc($_->[0], "qdisc del dev $_->[1] root") } }
        return;
    }
    my ($number, $unit) = $rate =~ /^([\d.]+)([kmg]?)bit$/ or croak "rate $rate";
    my $bits = $number * {'' => 1, k => 1e3, m => 1e6, g => 1e9}->{$unit};
    my $burst = $o{burst} // int($bits / 8 * 0.002);    # 2 ms worth, and a few frames at least
    $burst = 6000 if $burst < 6000;
    $self->tc($_->[0], "qdisc replace dev $_->[1] root tbf rate $rate burst $burst latency " . ($o{latency} // '50ms')) for @at;
}

# bad_line(NODE, delay_ms =>, jitter_ms =>, loss_percent =>, way => 'up', 'down' or 'both', seed =>):
# of each frame to or from node I. The first call puts a relay into the cable; it stays, and
# bad_line(NODE) alone is a good line again. Order is kept.
sub bad_line {
    my ($self, $i, %o) = @_;
    my $relay = $self->{relay}{$i} // $self->relay($i, $o{seed} // 1);
    my $way = {up => 'ab', down => 'ba', both => 'both'}->{$o{way} // 'both'} // croak "way $o{way}";
    my $said = $self->ask_relay($relay, sprintf '%s %d %d %d', $way, map { $_ + 0.5 }
        ($o{delay_ms} // 0) * 1000, ($o{jitter_ms} // 0) * 1000, ($o{loss_percent} // 0) * 10000);
    croak "lab_relay: $said" if $said ne 'ok';
}

# What the relay of node I did: {up => {passed, lost, full}, down => ...}
sub line_counts {
    my ($self, $i) = @_;
    my %way = $self->ask_relay($self->{relay}{$i}, 'count') =~ /(ab|ba) (passed \d+ lost \d+ full \d+)/g;
    return {up => {split / /, $way{ab}}, down => {split / /, $way{ba}}};
}

sub ask_relay {
    my ($self, $relay, $line) = @_;
    syswrite $relay->{in}, "$line\n" or croak "lab_relay: $!";
    return answer_of($relay);
}
sub answer_of {
    my $relay = shift;
    my ($line, $end) = ('', now() + 10);
    until ($line =~ s/\n\z//) {
        my $bits = '';
        vec($bits, fileno $relay->{out}, 1) = 1;
        croak 'lab_relay says nothing' if !select($bits, undef, undef, 0.5) && now() > $end;
        next unless vec $bits, fileno $relay->{out}, 1;
        sysread $relay->{out}, $line, 1, length $line or croak 'lab_relay has ended';
    }
    return $line;
}

# The port pI moves from the bridge br0 to a bridge of its own with the relay's one end; the other
# end takes its place at br0.
sub relay {
    my ($self, $i, $seed) = @_;
    my ($arch) = $machine;
    my ($program) = grep { -x } map { "$_/tests/lab_relay" } grep { defined } $ENV{DAIR_BUILD}, "build/$arch";
    croak 'lab_relay is not built' unless $program;
    pipe my $r1, my $w1 or die "pipe: $!";
    pipe my $r2, my $w2 or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        setpgrp 0, 0;
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
        open STDIN,  '<&', $r1 or POSIX::_exit(126);
        open STDOUT, '>&', $w2 or POSIX::_exit(126);
        exec tool('ip'), 'netns', 'exec', $self->switch, $program, "a$i", "b$i", $seed or POSIX::_exit(127);
    }
    $self->{running}{$pid} = {pid => $pid};
    my $relay = $self->{relay}{$i} = {pid => $pid, in => $w1, out => $r2};
    answer_of($relay) eq 'ready' or croak 'lab_relay does not start';
    $self->ip($self->switch, "link add br$i type bridge forward_delay 0 mcast_snooping 0", "link set dev br$i up",
        "link set dev a$i master br$i", "link set dev a$i up", "link set dev b$i master br0", "link set dev b$i up",
        "link set dev p$i master br$i");
    return $relay;
}

# True when someone in node I listens on TCP port PORT; asks the kernel, so the listener sees nothing.
sub listens {
    my ($self, $i, $port) = @_;
    my $at = sprintf ':%04X', $port;
    return $self->on($i, sub { scalar grep { /^\s*\d+: \S+$at \S+ 0A / } map { split /^/, slurp("/proc/thread-self/net/$_") } qw(tcp tcp6) });
}

# Bytes that node I has sent and received on its line, frames' heads included.
sub bytes {
    my ($self, $i) = @_;
    my $line = $self->on($i, sub { (grep { /^\s*eth0:/ } do { open my $h, '<', '/proc/thread-self/net/dev' or die $!; <$h> })[0] });
    my @field = split ' ', $line =~ s/.*://r;
    return {received => $field[0], sent => $field[8]};
}

# ---- HTTP

# connection(NODE, PORT, to => another node): a connected socket; made in NODE's network.
sub connection {
    my ($self, $i, $port, %o) = @_;
    my $end = now() + ($o{seconds} // 5);
    my $s = $self->on($i, sub { socket my $h, $self->{six} ? AF_INET6 : AF_INET, SOCK_STREAM, IPPROTO_TCP or die "socket: $!"; $h });
    fcntl $s, F_SETFL, fcntl($s, F_GETFL, 0) | O_NONBLOCK;
    setsockopt $s, IPPROTO_TCP, TCP_NODELAY, 1;
    my $to = $self->address($o{to} // $i);
    my $at = $self->{six} ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $to)) : pack_sockaddr_in($port, inet_aton($to));
    until (connect $s, $at) {
        last if $! == EISCONN;
        die 'connect: ' . ($! + 0 == EINPROGRESS || $! + 0 == EALREADY ? 'time-out' : "$!") . "\n"
          if !($! == EINPROGRESS || $! == EALREADY) || now() > $end;
        ready($s, 'write', 0.1);
    }
    return $s;
}
sub ready {
    my ($s, $how, $seconds) = @_;
    my $bits = '';
    vec($bits, fileno $s, 1) = 1;
    return 0 < ($how eq 'read' ? select($bits, undef, undef, $seconds) : select(undef, $bits, undef, $seconds));
}

# stream(NODE, METHOD, PATH, body => text, headers => {}, port => 8080, to => node): sends the
# request from NODE and returns an answer in progress, see Lab::Answer.
sub stream {
    my ($self, $i, $method, $path, %o) = @_;
    my $seconds = $o{seconds} // 30;
    my $s = $self->connection($i, $self->port($o{to} // $i, $o{port} // 8080), to => $o{to}, seconds => $seconds);
    my %head = (Host => 'lab', Connection => 'close', defined $o{body} ? ('Content-Type' => 'application/json',
        'Content-Length' => length $o{body}) : (), %{$o{headers} // {}});
    my $request = join("\r\n", "$method $path HTTP/1.1", (map { "$_: $head{$_}" } sort keys %head), '', '') . ($o{body} // '');
    my $end = now() + $seconds;
    local $SIG{PIPE} = 'IGNORE';
    while (length $request) {
        die "request: time-out\n" if now() > $end;
        next unless ready($s, 'write', 0.5);
        my $n = syswrite $s, $request;
        die "request: $!\n" if !defined $n && $! != EAGAIN && $! != EINTR;
        substr($request, 0, $n // 0) = '';
    }
    return Lab::Answer->new($s, now());
}

# http(NODE, METHOD, PATH, as for stream): the whole answer, {status, headers, body}; dies when there is none
# within seconds (30).
sub http {
    my ($self, $i, $method, $path, %o) = @_;
    my $end = now() + ($o{seconds} // 30);
    my $answer = $self->stream($i, $method, $path, %o);
    $answer->read_on($end - now()) until $answer->{ended} || now() > $end;
    die "$method $path: time-out\n" unless $answer->{ended};
    die "$method $path: the connection ended early\n" if $answer->{broken};
    return $answer;
}

# gather(SECONDS, ANSWER...): reads all of them as their parts come, until the end of each.
# True if all ended in time.
sub gather {
    my ($seconds, @answer) = @_;
    my $end = now() + $seconds;
    while (my @open = grep { !$_->{ended} } @answer) {
        return 0 if now() > $end;
        my $bits = '';
        vec($bits, fileno $_->{socket}, 1) = 1 for @open;
        next unless 0 < select $bits, undef, undef, 0.2;
        $_->read_on(0) for grep { vec $bits, fileno $_->{socket}, 1 } @open;
    }
    return 1;
}

# An HTTP answer as it comes: {status, headers, body, events => [{at, data}], ended, broken}. `at`
# is the time of arrival after the request, in seconds; an event of a stream is one `data:` field.
package Lab::Answer;
use POSIX qw(:errno_h);

sub new {
    my ($class, $socket, $asked) = @_;
    return bless {socket => $socket, asked => $asked, raw => '', rest => '', body => '', events => [], headers => {}}, $class;
}

# Reads what there is within SECONDS; false at the end.
sub read_on {
    my ($self, $seconds) = @_;
    return 0 if $self->{ended};
    return 1 unless Lab::ready($self->{socket}, 'read', $seconds > 0 ? $seconds : 0);
    my $n = sysread $self->{socket}, $self->{raw}, 65536, length $self->{raw};
    return 1 if !defined $n && ($! == EAGAIN || $! == EINTR);
    $self->{at} = Lab::now() - $self->{asked};
    $self->parse() if $n;
    if (!$n && !$self->{ended}) {
        # Without a length the end of the connection is the end of the body.
        $self->{ended}  = 1;
        $self->{broken} = !$self->{status} || $self->{chunked} || defined $self->{headers}{'content-length'};
    }
    close $self->{socket} if $self->{ended};
    return !$self->{ended};
}

sub parse {
    my $self = shift;
    if (!$self->{status}) {
        $self->{raw} =~ s/\A(.*?)\r\n\r\n//s or return;
        my ($first, @lines) = split /\r\n/, $1;
        ($self->{status}) = $first =~ m{^HTTP/1\.\d (\d{3})} or die "not HTTP: $first\n";
        for (@lines) { my ($k, $v) = split /:\s*/, $_, 2; $self->{headers}{lc $k} = $v }
        $self->{chunked} = lc($self->{headers}{'transfer-encoding'} // '') eq 'chunked';
    }
    if ($self->{chunked}) {
        while ($self->{raw} =~ /\A([0-9a-fA-F]+)[^\r\n]*\r\n/) {
            my ($head, $size) = ($+[0], hex $1);
            last if length $self->{raw} < $head + $size + 2;
            $self->take(substr $self->{raw}, $head, $size);
            substr($self->{raw}, 0, $head + $size + 2) = '';
            if (!$size) { $self->{ended} = 1; last }
        }
    } else {
        $self->take($self->{raw});
        $self->{raw} = '';
        my $size = $self->{headers}{'content-length'};
        $self->{ended} = 1 if defined $size && length $self->{body} >= $size;
    }
}

sub take {
    my ($self, $part) = @_;
    $self->{body} .= $part;
    return unless ($self->{headers}{'content-type'} // '') =~ m{^text/event-stream};
    $self->{rest} .= $part;
    while ($self->{rest} =~ s/\A(.*?)\r?\n\r?\n//s) {
        my $data = join "\n", map { /^data: ?(.*)/s ? $1 : () } split /\r?\n/, $1;
        push @{$self->{events}}, {at => $self->{at}, data => $data} if length $data;
    }
}

1;
