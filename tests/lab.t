#!/usr/bin/perl
# lab.t - the laboratory itself: that delays, losses, rates and partitions are what was asked for, and that
# nothing stays behind. What a test of the cluster proves rests on this.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Lab 'isolated';
use Socket qw(:all);
use Test::More;

my @before = split /\n/, `ip netns list`;
my $begin  = now();
my $lab    = Lab->new(nodes => 4);
cmp_ok(now() - $begin, '<', 10, 'four nodes and their switch are there');

# ---- sockets in the nodes, all of them held by this process
my (%udp4, %udp6);
for my $i ($lab->nodes) {
    $udp4{$i} = $lab->on($i, sub { socket my $s, AF_INET,  SOCK_DGRAM, 0 or die $!; $s });
    $udp6{$i} = $lab->on($i, sub { socket my $s, AF_INET6, SOCK_DGRAM, 0 or die $!; $s });
    my $index = $lab->on($i, sub { (Lab::slurp('/proc/thread-self/net/if_inet6') =~ /^fe80\S* (\S+) .* eth0$/m)[0] });
    bind $udp4{$i}, pack_sockaddr_in(5353, INADDR_ANY) or die $!;
    setsockopt $udp6{$i}, IPPROTO_IPV6, IPV6_V6ONLY, 1;
    bind $udp6{$i}, pack_sockaddr_in6(5353, IN6ADDR_ANY) or die $!;
    setsockopt $udp4{$i}, IPPROTO_IP, IP_ADD_MEMBERSHIP, pack_ip_mreq(inet_aton('224.0.0.251'), inet_aton($lab->address($i))) or die $!;
    setsockopt $udp6{$i}, IPPROTO_IPV6, IPV6_JOIN_GROUP, pack_ipv6_mreq(inet_pton(AF_INET6, 'ff02::fb'), hex $index) or die $!;
    $udp6{"scope $i"} = hex $index;
}
sub to4 { return pack_sockaddr_in(5353, inet_aton(shift)) }
sub to6 { my ($i, $at) = @_; return pack_sockaddr_in6(5353, inet_pton(AF_INET6, $at), $udp6{"scope $i"}, 0) }

# The text of the next datagram at S within SECONDS, or nothing.
sub heard {
    my ($s, $seconds) = @_;
    return unless Lab::ready($s, 'read', $seconds);
    recv $s, my $text, 65536, 0;
    return $text;
}
sub quiet { my $s = shift; 1 while defined heard($s, 0) }

my $serial = 0;

# Seconds from node A to node B, or nothing within LIMIT.
sub hop {
    my ($from, $to, $limit) = @_;
    quiet($udp4{$to});
    my ($text, $begin) = ('hop ' . ++$serial, now());
    send $udp4{$from}, $text, 0, to4($lab->address($to)) or die "send: $!";
    while ((my $left = $begin + ($limit // 5) - now()) > 0) {
        return now() - $begin if (heard($udp4{$to}, $left) // '') eq $text;
    }
    return;
}
sub passes { return defined hop(@_[0, 1]) }
sub dropped { return !defined hop(@_[0, 1], 0.3) }

ok(passes(1, $_) && passes($_, 1), "IPv4: 1 and $_") for 2 .. 4;
send $udp6{1}, 'six', 0, to6(1, $lab->address6(3)) or die $!;
is(heard($udp6{3}, 5), 'six', 'IPv6: link-local');
send $udp4{1}, 'all four', 0, to4('224.0.0.251') or die $!;
is(heard($udp4{$_}, 5), 'all four', "multicast: node $_") for 2 .. 4;
send $udp6{2}, 'all six', 0, to6(2, 'ff02::fb') or die $!;
is(heard($udp6{$_}, 5), 'all six', "multicast, IPv6: node $_") for 1, 3, 4;

# ---- cables and partitions
$lab->pull(2);
ok(dropped(1, 2) && passes(1, 3), 'a pulled cable');
$lab->plug(2);
ok(passes(1, 2), 'and in again');
$lab->cut_one_way([1], [2, 3]);
ok(dropped(1, 2) && dropped(1, 3), 'cut one way: what 1 sends does not come to 2 and 3');
ok(passes(1, 4) && passes(2, 1) && passes(3, 1), 'everything else does');
quiet($_) for values %udp4;
send $udp4{1}, 'to all', 0, to4('224.0.0.251') or die $!;
is(heard($udp4{4}, 5), 'to all', 'nor to anyone else by multicast');
ok(!defined heard($udp4{2}, 0.3), 'but not to 2');
$lab->cut([1, 2], [3, 4]);
ok(dropped(1, 4) && dropped(4, 1) && dropped(2, 3) && dropped(3, 2), 'two halves');
ok(passes(2, 1) && passes(3, 4) && passes(4, 3), 'each is whole but for the first cut');
$lab->heal();
my @bad = grep { my ($from, $to) = split //; $from != $to && !passes($from, $to) } map { my $n = $_; map { "$n$_" } 1 .. 4 } 1 .. 4;
is("@bad", '', 'healed');

# ---- counters
my ($one, $two) = ($lab->bytes(1), $lab->bytes(2));
send $udp4{1}, 'x' x 1000, 0, to4($lab->address(2)) for 1 .. 100;
await { $lab->bytes(2)->{received} >= $two->{received} + 104200 } 5, 'the bytes arrive';
my $sent = $lab->bytes(1)->{sent} - $one->{sent};
ok($sent >= 104200 && $sent < 106000, "100 datagrams of 1000 bytes are $sent bytes on the line");

# ---- rate: seconds for so many bytes over TCP
sub transfer {
    my ($from, $to, $bytes) = @_;
    my $listener = $lab->on($to, sub { socket my $s, AF_INET, SOCK_STREAM, 0 or die $!; $s });
    setsockopt $listener, SOL_SOCKET, SO_REUSEADDR, 1;
    bind $listener, pack_sockaddr_in(9000 + ++$serial, INADDR_ANY) or die $!;
    listen $listener, 1 or die $!;
    my $out = $lab->connection($from, 9000 + $serial, to => $to);
    Lab::ready($listener, 'read', 5) or die 'no connection';
    accept my $in, $listener or die $!;
    my ($begin, $got, $left) = (now(), 0, $bytes);
    while ($got < $bytes && now() < $begin + 30) {
        if ($left && Lab::ready($out, 'write', 0)) { $left -= syswrite($out, 'x' x ($left < 65536 ? $left : 65536)) // 0 }
        if (Lab::ready($in, 'read', 0.005)) { $got += sysread($in, my $part, 1 << 20) // 0 }
    }
    return now() - $begin;
}
my $free = transfer(1, 2, 3e6);
cmp_ok($free, '<', 1, sprintf 'without a limit %.0f Mbit/s', 24 / $free);
for my $case (['20mbit', 20, 3e6], ['100mbit', 100, 12e6]) {
    my ($rate, $mbit, $bytes) = @$case;
    $lab->rate(2, $rate);
    for my $way ([1, 2], [2, 1]) {
        my $got = $bytes * 8e-6 / transfer(@$way, $bytes);
        ok($got > 0.7 * $mbit && $got < 1.1 * $mbit, sprintf "%s: %.1f Mbit/s from %d to %d", $rate, $got, @$way);
    }
}
$lab->rate(2);
cmp_ok(transfer(1, 2, 3e6), '<', 1, 'and without a limit again');

# ---- delay, jitter, loss
SKIP: {
    my $relay = eval { $lab->bad_line(3); 1 };
    skip "no bad lines: $@", 12 unless $relay;
    sub hops { my ($from, $to, $n) = @_; my @t = map { hop($from, $to) // 99 } 1 .. $n; return sort { $a <=> $b } @t }
    passes(1, 3) && passes(3, 1);    # they know each other's addresses again
    my @plain = hops(1, 3, 20);
    cmp_ok($plain[0], '<', 0.003, sprintf 'the relay alone: %.2f ms', 1e3 * $plain[0]);
    $lab->bad_line(3, delay_ms => 20);
    for my $way ([1, 3], [3, 1]) {
        my @t = hops(@$way, 10);
        ok($t[0] >= 0.020 && $t[0] < 0.023, sprintf 'delay 20 ms: %.2f to %.2f ms from %d to %d', 1e3 * $t[0], 1e3 * $t[-1], @$way);
    }
    ok((hops(1, 2, 5))[0] < 0.005, 'others have none of it');
    $lab->bad_line(3, delay_ms => 10, jitter_ms => 10, way => 'down');
    $lab->bad_line(3, way => 'up');
    my @t = hops(1, 3, 40);
    ok($t[0] >= 0.010 && $t[0] < 0.015 && $t[-1] > 0.015, sprintf 'jitter: %.2f to %.2f ms', 1e3 * $t[0], 1e3 * $t[-1]);
    @t = hops(3, 1, 20);
    cmp_ok($t[0], '<', 0.003, 'none the other way');
    # In order: 50 in a row through the jitter.
    quiet($udp4{3});
    send $udp4{1}, "order $_", 0, to4($lab->address(3)) for 1 .. 50;
    is(join(' ', map { heard($udp4{3}, 5) =~ /(\d+)/ } 1 .. 50), join(' ', 1 .. 50), 'jitter keeps the order');

    $lab->bad_line(3, loss_percent => 10, way => 'down');
    my ($n, $got, $was) = (2000, 0, $lab->line_counts(3)->{down});
    for my $k (1 .. $n) {
        send $udp4{1}, "loss $k", 0, to4($lab->address(3)) or die $!;
        if ($k % 50 == 0) { $got++ while defined heard($udp4{3}, 0.02) }
    }
    $got++ while defined heard($udp4{3}, 0.3);
    my $is   = $lab->line_counts(3)->{down};
    my $lost = $n - $got;
    ok($lost > 0.07 * $n && $lost < 0.13 * $n, sprintf 'loss 10 %%: %.1f %%', 100 * $lost / $n);
    my $counted = $is->{lost} - $was->{lost} + $is->{full} - $was->{full};
    ok($counted >= $lost && $counted <= $lost + 5, "the relay counted $counted, $lost are missing");
    is($is->{full} - $was->{full}, 0, 'none of them for want of room');
    $lab->bad_line(3);
    is(scalar(grep { passes(1, 3) } 1 .. 50), 50, 'a good line again');
    cmp_ok(transfer(1, 3, 3e6), '<', 3, 'TCP through the relay');
}

# ---- processes
my $p = $lab->start(2, ['sh', '-c', 'echo out; echo err >&2; exec sleep 1000'], env => {MARK => 'x'});
await { $lab->err($p) eq "err\n" } 5, 'it speaks';
is($lab->out($p), "out\n", 'its output is kept');
is($lab->kill_now($p), -9, 'killed');
my $deaf = $lab->start(2, ['sh', '-c', 'trap "" TERM; echo deaf; while :; do sleep 0.1; done']);
await { $lab->out($deaf) } 5, 'it speaks';
is($lab->stop($deaf, 'TERM', 0.3), -9, 'what does not end is killed');
ok($deaf->{hangs}, 'and that is told');
my $ls = $lab->start(3, ['ls', '/sys/class/net']);
await { defined $lab->status($ls) } 5, 'ls ends';
is($lab->out($ls), "eth0\nlo\n", 'a process sees the network of its node in /sys');

# ---- HTTP and streams
my $server = <<'PERL';
use IO::Socket::INET;
my $l = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die $!;
$| = 1; print "up\n";
while (my $c = $l->accept) {
    my ($get) = <$c> =~ m{^\w+ (\S+)};
    my $n = 0;
    while (<$c>) { /^Content-Length: (\d+)/i and $n = $1; last if /^\r/ }
    read $c, my $body, $n if $n;
    $c->autoflush(1);
    if ($get eq '/stream') {
        print $c "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        for my $k (1 .. 3) {
            # An event in two pieces, with a comment before it.
            for my $t (": wait\n\ndata: {\"k\"", ":$k}\n\n") { printf $c "%x\r\n%s\r\n", length $t, $t }
            select undef, undef, undef, 0.15;
        }
        print $c "0\r\n\r\n";
    } elsif ($get eq '/short') {
        print $c "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
    } elsif ($get eq '/never') {
        push @held, $c; next;
    } else {
        print $c "HTTP/1.1 200 OK\r\nContent-Length: ", length "$get $body", "\r\n\r\n$get $body";
    }
    close $c;
}
PERL
my $http = $lab->start(4, [$^X, '-e', $server]);
await { $lab->out($http) eq "up\n" } 10, 'a server';
is($lab->http(4, GET => '/health')->{body}, '/health ', 'GET from the node itself');
is($lab->http(1, POST => '/x', to => 4, body => '{"a":1}')->{body}, '/x {"a":1}', 'POST from another');
my @streams = map { $lab->stream($_, GET => '/stream', to => 4) } 1, 2;
ok(gather(20, @streams), 'two streams at once');
is(join(' ', map { $_->{data} } @{$_->{events}}), '{"k":1} {"k":2} {"k":3}', 'its events') for @streams;
my @at = map { $_->{at} } @{$streams[0]{events}};
ok($at[2] - $at[0] >= 0.28 && $at[0] < $at[1] && $at[1] < $at[2], sprintf 'with their times: %.2f %.2f %.2f s', @at);
eval { $lab->http(1, GET => '/short', to => 4) };
like($@, qr/ended early/, 'a connection that ends early is an error');
eval { $lab->http(1, GET => '/never', to => 4, seconds => 0.5) };
like($@, qr/time-out/, 'so is one that says nothing');
eval { $lab->http(1, GET => '/', to => 3) };
like($@, qr/refused/, 'and a port where nobody listens');
eval { await { die "no such thing\n" } 0.1, 'something' };
like($@, qr/not within 0.1 s: something \(last: no such thing/, 'await says what it waited for');

# ---- without root: nodes on lo
my $plain = Lab->new(nodes => 2, on => 'lo');
isnt($plain->port(1, 8080), $plain->port(2, 8080), 'on lo each node has ports of its own');
is($plain->port(1, 8080), $plain->port(1, 8080), 'and keeps them');
my $echo = $plain->start(1, ['sh', '-c', 'echo here']);
await { defined $plain->status($echo) } 5, 'it ends';
is($plain->out($echo), "here\n", 'processes are the same');

# ---- and nothing is left
undef $lab;
is(join("\n", split /\n/, `ip netns list`), join("\n", @before), 'its networks are gone');
my $script = <<'PERL';
use Lab 'isolated';
my $lab = Lab->new(nodes => 2);
$lab->start(1, ['sleep', '7654321']);
$lab->start(2, ['sh', '-c', 'setsid sleep 7654321 & sleep 7654321']);
$| = 1; print "up\n"; sleep 600;
PERL
sub sleepers { return grep { Lab::slurp($_) =~ /^sleep\0007654321\0/ } glob '/proc/[0-9]*/cmdline' }
for my $signal (qw(TERM KILL)) {
    open my $h, '>', "$plain->{dir}/inner.pl" or die $!;
    print $h $script;
    close $h;
    my $inner = $plain->start(1, [$^X, "-I$FindBin::Bin", "$plain->{dir}/inner.pl"], env => {DAIR_LAB => ''});
    await { $plain->out($inner) eq "up\n" && sleepers() == 3 } 20, 'a laboratory inside this one';
    $plain->stop($inner, $signal, 10);
    ok(eval { await { !sleepers() } 10, 'nobody sleeps' }, "its processes end with it, by $signal too");
    ok(!$inner->{hangs}, 'at once') if $signal eq 'TERM';
}
is(join("\n", split /\n/, `ip netns list`), join("\n", @before), 'networks: none is left');
done_testing();
