#!/usr/bin/perl
# mdns.t - TAP: our mDNS among others, in network namespaces that go away again: nodes of ours, a real
# Avahi in both roles, the npm client multicast-dns in both roles, and a resolver that knows no more
# than DNS. Its subject is tests/test_mdns_lo with arguments. Needs root for the namespaces.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use IO::Handle;
use IO::Select;
use Test::More;
use Time::HiRes qw(time sleep);

my $subject = "$build/tests/test_mdns_lo";
$ENV{PATH} .= ':/usr/sbin:/sbin';
plan skip_all => "$subject is not built"          unless -x $subject;
plan skip_all => 'namespaces need root'           unless $> == 0;
plan skip_all => 'namespaces need ip (iproute2)'  unless have('ip');

my $dir = scratch();
my ($A, $B) = ("dairm$$" . 'a', "dairm$$" . 'b');
my (@alive, @spaces);
my $owner = $$;

END {
    if ($$ == ($owner // 0)) {
        local $?;
        for my $p (@alive) { kill 'KILL', $p->{pid}; waitpid $p->{pid}, 0 }
        system "ip netns del $_ 2>/dev/null" for @spaces;
    }
}

sub run { my $out = `$_[0] 2>&1`; return $? == 0 || diag("$_[0]: $out") && 0 }

# A child with pipes at both ends; its lines are kept, so that none is missed.
sub start {
    my ($space, @words) = @_;
    pipe my $in, my $to or die;
    pipe my $from, my $out or die;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        open STDIN,  '<&', $in  or POSIX::_exit(126);
        open STDOUT, '>&', $out or POSIX::_exit(126);
        open STDERR, '>>', "$dir/stderr" or POSIX::_exit(126);
        close $_ for $to, $from;
        exec 'ip', 'netns', 'exec', $space, @words or POSIX::_exit(127);
    }
    $to->autoflush(1);
    my $p = {pid => $pid, to => $to, from => $from, text => '', words => "@words"};
    push @alive, $p;
    return $p;
}
sub node { my ($space, @words) = @_; return start($space, $subject, 'node', @words) }

# Wait until the process has said a line like this; the line. $p->{at} marks what was seen before.
sub hear {
    my ($p, $like, $seconds) = @_;
    my $end = time + ($seconds // 15);
    while (1) {
        pos($p->{text}) = $p->{at} // 0;
        return $1 if $p->{text} =~ /^($like[^\n]*)\n/mg;
        my $left = $end - time;
        last if $left <= 0 || !IO::Select->new($p->{from})->can_read($left);
        sysread $p->{from}, $p->{text}, 65536, length $p->{text} or last;
    }
    diag("no /$like/ from $p->{words}: " . substr($p->{text}, $p->{at} // 0) . read_file("$dir/stderr"));
    return '';
}
sub order { my ($p, $line) = @_; $p->{at} = length $p->{text}; print {$p->{to}} "$line\n" }
sub stop {
    my ($p, $signal) = @_;
    kill $signal, $p->{pid} if $signal;
    close $p->{to};
    my $end = time + 10;
    while (waitpid($p->{pid}, 1) == 0) {
        kill 'KILL', $p->{pid} if time > $end;
        sleep 0.02;
    }
    @alive = grep { $_ != $p } @alive;
}

# Ask a tool again and again until it says this.
sub until_says {
    my ($command, $like, $seconds) = @_;
    my ($end, $out) = (time + ($seconds // 15), '');
    while (time < $end) {
        $out = `timeout 10 $command 2>&1`;
        return 1 if $out =~ $like;
        sleep 0.2;
    }
    diag("$command: $out");
    return 0;
}

# ---- two machines and a cable
push @spaces, $A, $B;
my $made = run("ip netns add $A") && run("ip netns add $B") && run("ip link add v0 netns $A type veth peer name v0 netns $B")
    && run("ip netns exec $A true");
plan skip_all => 'this machine lets root make no namespaces' unless $made;
for ([$A, 1], [$B, 2]) {
    my ($space, $last) = @$_;
    run("ip -n $space addr add 192.0.2.$last/24 dev v0");
    run("ip -n $space addr add fd00:d::$last/64 dev v0 nodad");
    run("ip -n $space link set lo up");
    run("ip -n $space link set v0 up");
}

# ---- ours among themselves
my $a = node($A, 'dair-aa01', 7001, 'a1', 'c1');
my $b = node($B, 'dair-bb01', 7002, 'b1', 'c1');
like(hear($a, 'peer dair-bb01 7002 b1 c1 0 '), qr/ 192\.0\.2\.2/, 'a node finds another over IPv4 and IPv6');
like(hear($b, 'peer dair-aa01 7001 a1 c1 0 .*fe80::'), qr/fe80::[^%]*%[1-9]/, 'with a link-local address and its scope');
order($a, 'epoch 5');
ok(hear($b, 'peer dair-aa01 7001 a1 c1 5 '), 'new facts arrive');
$b->{at} = length $b->{text};
run("ip -n $A addr add 192.0.2.77/24 dev v0");
ok(hear($b, 'peer dair-aa01 .*192\.0\.2\.77'), 'an address that is added is announced');
$b->{at} = length $b->{text};
run("ip -n $A addr del 192.0.2.77/24 dev v0");
ok(hear($b, 'peer dair-aa01 7001 a1 c1 5 (?!.*192\.0\.2\.77)'), 'one that is removed is taken back');
my $c = node($B, 'dair-aa01', 7003, 'c1', 'c1');
is(hear($c, 'name '), 'name dair-aa01-2', 'a third of the same name is renamed');
ok(hear($a, 'peer dair-aa01-2 7003 c1 '), 'and found by its new name');
order($a, 'serve');
order($b, 'serve');
my $other = node($A, 'dair-dd01', 7004, 'd1', 'c2');
ok(hear($other, 'peer dair-bb01 '), 'a node of another cluster');
ok(until_says_status($a, 'dair-aa01 dair\.') && until_says_status($b, 'dair-bb01 dair\.'), 'two of one cluster share dair.local');
order($other, 'serve');
ok(until_says_status($other, 'dair-dd01 dair-2\.'), 'has the shared name dair-2.local');
order($other, 'status');
like(hear($other, 'status .*'), qr/sockets 2 malformed 0 conflicts 0/, 'a socket for each family, nothing malformed');
stop($other);
ok(hear($a, 'gone dair-dd01'), 'a goodbye is heard');
stop($c);
run("ip -n $A link set v0 down");
ok(hear($a, 'gone dair-bb01'), 'no cable, no peer');
$a->{at} = length $a->{text};
run("ip -n $A link set v0 up");
ok(hear($a, 'peer dair-bb01 7002 .*192\.0\.2\.2', 25), 'the cable is back, and so is the peer');
run("ip -n $A addr add fd00:d::1/64 dev v0 nodad");

sub until_says_status {
    my ($p, $like) = @_;
    my $end = time + 15;
    while (time < $end) {
        order($p, 'status');
        return 1 if hear($p, 'status ', 5) =~ $like;
        sleep 0.2;
    }
    return 0;
}

# ---- a resolver that knows no mDNS: one question from a port of its own
my $ask = 'use IO::Socket::INET; use IO::Select; my $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => "192.0.2.2");'
  . 'my $q = pack("n6 C/a C/a x n2", 0x4d2, 0, 1, 0, 0, 0, "dair-aa01", "local", 1, 1);'
  . '$s->send($q, 0, pack_sockaddr_in(5353, inet_aton($ARGV[0])));'
  . 'if (IO::Select->new($s)->can_read(1)) { $s->recv(my $r, 9000); print unpack("H*", $r) }';
for my $to ('224.0.0.251', '192.0.2.1') {
    ok(until_says("ip netns exec $B perl -e '$ask' $to",
            qr/^04d28400000100010000....09646169722d61613031056c6f63616c0000010001c00c000100010000000a0004c0000201/),
        "to $to: its id, its question, the address for 10 s");
}
stop($b);

# ---- Avahi
my $avahi = have('avahi-daemon') && have('avahi-browse') && have('dbus-daemon');
SKIP: {
    skip 'Avahi is not here (avahi-daemon avahi-utils dbus)', 18 unless $avahi;
    write_file("$dir/bus.conf", <<"X");
<busconfig><type>system</type><listen>unix:path=$dir/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>
X
    write_file("$dir/avahi.conf", <<'X');
[server]
host-name=testbox
use-ipv4=yes
use-ipv6=yes
disallow-other-stacks=no
[publish]
publish-hinfo=no
publish-workstation=no
[rlimits]
X
    my $bus = start($B, 'dbus-daemon', "--config-file=$dir/bus.conf", '--nofork', '--nopidfile', '--print-address=1');
    ok(hear($bus, 'unix:'), 'a bus of its own for Avahi');
    local $ENV{DBUS_SYSTEM_BUS_ADDRESS} = "unix:path=$dir/bus";
    # Its pid file has a fixed place: the namespace has a /run of its own.
    my $box = sub {
        my $conf = shift;
        return start($B, 'sh', '-c', "mount -t tmpfs none /run && exec avahi-daemon --no-drop-root --no-chroot --no-rlimits -f $conf 2>&1");
    };
    my $daemon = $box->("$dir/avahi.conf");
    ok(hear($daemon, 'Server startup complete'), 'Avahi runs');
    my $in = "ip netns exec $B";
    ok(until_says("$in avahi-browse -rpt _dair._tcp",
            qr/^=;v0;IPv4;dair-aa01;_dair\._tcp;local;dair-aa01\.local;192\.0\.2\.1;7001;.*"ep=5".*"cf=00000000000000c1"/m),
        'Avahi browses and resolves our service');
    ok(until_says("$in avahi-browse -rpt _dair._tcp", qr/^=;v0;IPv6;dair-aa01;/m), 'by IPv6 as well');
    ok(until_says("$in avahi-resolve -4 -n dair-aa01.local", qr/192\.0\.2\.1$/m), 'our name');
    ok(until_says("$in avahi-resolve -6 -n dair-aa01.local", qr/\t(fe80|fd00)/m), 'and its IPv6 address');
    ok(until_says("$in avahi-resolve -a 192.0.2.1", qr/dair-aa01\.local/), 'and back from the address');
    ok(until_says("$in avahi-resolve -4 -n dair.local", qr/192\.0\.2\.1$/m), 'the shared name');
    ok(until_says("$in avahi-browse -krpt _http._tcp", qr/^=;v0;IPv4;dair-aa01;_http\._tcp;local;dair-aa01\.local;192\.0\.2\.1;80;"path=\/"/m),
        'the page');
    $a->{at} = length $a->{text};
    my $published = start($B, 'avahi-publish', '-s', 'from avahi', '_dair._tcp', 9999, 'in=00000000000000ff',
        'id=ab0102030405060708090a0b0c0d0e0f', 'cf=00000000000000c1');
    ok(hear($a, 'peer testbox 9999 ab c1 0 .*192\.0\.2\.2'), 'we find what Avahi announces');
    stop($published, 'TERM');
    ok(hear($a, 'gone testbox'), 'and hear its goodbye');
    # Beside it on the same machine, as nobody.
    if (have('setpriv')) {
        chmod 0755, $dir;
        my $copy = "/tmp/dair-mdns-$$";
        system 'cp', $subject, $copy;
        my $n = start($B, 'setpriv', '--reuid=65534', '--clear-groups', $copy, 'node', 'dair-ee01', 7005, 'e1', 'c1');
        ok(hear($n, 'peer dair-aa01 7001 a1 '), 'we share its port, without rights');
        ok(until_says("$in avahi-resolve -4 -n dair-ee01.local", qr/192\.0\.2\.2$/m), 'and it hears us');
        ok(hear($a, 'peer dair-ee01 7005 e1 '), 'as do others');
        stop($n);
        unlink $copy;
    }
    # Who has the name first keeps it, whoever that is.
    my $n = node($A, 'TestBox', 7006, 'f1', 'c1');
    is(hear($n, 'name '), 'name TestBox-2', 'Avahi has the name: we are renamed');
    stop($n);
    stop($daemon, 'TERM');
    (my $conf = read_file("$dir/avahi.conf")) =~ s/testbox/dair-aa01/;
    write_file("$dir/avahi2.conf", $conf);
    $daemon = $box->("$dir/avahi2.conf");
    like(hear($daemon, '.*Server startup complete. Host name is '), qr/is dair-aa01-2\.local/, 'we have the name: Avahi renames itself');
    order($a, 'status');
    like(hear($a, 'status '), qr/^status dair-aa01 dair\. /, 'and we keep it');
    stop($a);
    ok(until_says("$in avahi-browse -pt _dair._tcp", qr/\A(?!.*dair-aa01;)/s), 'it hears our goodbye');
    stop($daemon, 'TERM');
    stop($bus, 'TERM');
}
stop($a) if grep { $_ == $a } @alive;

# ---- npm multicast-dns, of the versions and hashes in npm-mdns/package-lock.json
SKIP: {
    skip 'node and npm are not here', 6 unless have('node') && have('npm');
    my $npm = "$build/../npm-mdns";
    system "mkdir -p $npm && cp $FindBin::Bin/npm-mdns/*.json $npm";
    system "cd $npm && timeout 120 npm ci --ignore-scripts --no-audit --no-fund >npm.log 2>&1" unless -d "$npm/node_modules/multicast-dns";
    skip 'npm cannot fetch multicast-dns', 6 unless -d "$npm/node_modules/multicast-dns";
    my @js = ('node', "$FindBin::Bin/npm-mdns/peer.js", "$npm/node_modules");
    my $n = node($A, 'dair-aa02', 7001, 'a2', 'c1');
    my $js = start($B, @js, '192.0.2.2', 'be', 'dair-js', 7777, '192.0.2.2');
    ok(hear($n, 'peer dair-js 7777 ee c1 4 192\.0\.2\.2'), 'we find a node made with multicast-dns');
    ok(hear($js, 'asked known'), 'and tell it that we know it');
    $n->{at} = length $n->{text};
    stop($js);
    ok(hear($n, 'gone dair-js'), 'and hear its goodbye');
    my $q = start($B, @js, '192.0.2.2', 'ask', '_dair._tcp.local', 'PTR');
    ok(hear($q, '_dair\._tcp\.local PTR 4500 false dair-aa02\._dair\._tcp\.local'), 'it finds us');
    ok(hear($q, 'dair-aa02\._dair\._tcp\.local SRV 120 true dair-aa02\.local:7001'), 'where we are');
    ok(hear($q, 'dair-aa02\.local A 120 true 192\.0\.2\.1'), 'and our address');
    stop($q, 'TERM');
    stop($n);
}

done_testing();
