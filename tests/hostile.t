#!/usr/bin/perl
# hostile.t - a cluster among strangers: copied cards, wrong keys, a second cluster on the LAN, links
# that flap, garbage, replays and floods. What must not have an effect has none.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use POSIX ();
use Socket;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my %ask = (prompt => 'A node', max_tokens => 24);
my $right;

sub cluster { my ($n, %o) = @_; return Nodes->new(lab => Lab->new(nodes => $n), memory => '32M', %o) }
sub same { my ($nodes, $i, $name) = @_; $right //= $nodes->alone(%ask); is($nodes->text($i, %ask), $right, $name) }
sub id_of { my ($nodes, $i) = @_; return $nodes->status($i)->{node}{id} }

# ---- a copied card
{
    my $nodes = cluster(3);
    $nodes->start(1, 2)->serving(2, 1, 2);
    my ($first, $second) = map { id_of($nodes, $_) } 1, 2;
    # Node 3 is given what node 1 wrote when it was first switched on.
    mkdir "$nodes->{dir}/state-3";
    write_file("$nodes->{dir}/state-3/node-id", read_file("$nodes->{dir}/state-1/node-id"));
    $nodes->start(3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'two nodes with one id: three serve all the same') or diag($@);
    is(id_of($nodes, 1), $first, 'the elder keeps its id');
    isnt(id_of($nodes, 3), $first, 'the younger took another');
    like($nodes->log_of(3), qr/same id/, 'and says why');
    my $new = id_of($nodes, 3);
    same($nodes, 3, 'it answers');
    $nodes->end(3);
    $nodes->start(3)->serving(3, 1 .. 3);
    is(id_of($nodes, 3), $new, 'and keeps its new id over a restart');
    $nodes->end($_) for 1 .. 3;
}

# ---- two clusters on one LAN; a key that is changed
{
    my $nodes = cluster(4);
    chomp(my $other = dair(['keygen'])->{out});
    $nodes->{of}{$_} = {key => $other} for 3, 4;
    $nodes->start(1 .. 4);
    ok(eval { $nodes->serving(2, 1, 2) && $nodes->serving(2, 3, 4) }, 'two keys on one LAN: two clusters of two') or diag($@);
    is(scalar @{$nodes->status($_)->{cluster}{nodes}}, 2, "node $_ counts two nodes") for 1, 4;
    my $names = sub { join ' ', sort map { $nodes->status($_)->{node}{shared_name} // '' } 1 .. 4 };
    eval { Lab::await { $names->() eq 'dair dair dair-2 dair-2' } 20, 'names' };
    is($names->(), 'dair dair dair-2 dair-2', 'each with a name of its own');
    same($nodes, $_, "node $_ answers") for 1, 3;
    # One card after the other gets the new key, with the old one as cluster_key_old.
    for my $i (1, 2) {
        $nodes->end($i);
        $nodes->{of}{$i} = {key => $other, args => ['--cluster-key-old', $nodes->{key}]};
        $nodes->start($i);
    }
    ok(eval { $nodes->serving(4, 1 .. 4) }, 'with the other key in place they are one cluster of four') or diag($@);
    same($nodes, 2, 'which answers');
    $nodes->end($_) for 1 .. 4;
}

# ---- strangers at the door
{
    my $nodes = cluster(3);
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $lab  = $nodes->{lab};
    same($nodes, 1, 'a cluster of two');
    my $size = $nodes->size(1);
    my $port = $lab->port(1, 9998);
    my $epoch = $nodes->status(1)->{cluster}{epoch};
    srand 3;
    for my $round (1 .. 40) {
        my $s = $lab->connection(3, $port, to => 1);
        syswrite $s, join '', map { chr int rand 256 } 1 .. 64 + rand 400;
        close $s;
    }
    # Half-open: 250 that say nothing, 250 that open as a node of this cluster would and stop there, or
    # go on with something that is no ClientHello.
    my $print = reverse pack 'H16', $nodes->status(1)->{cluster}{fingerprint};    # little-endian
    my $preamble = sub {
        my $id = join '', map { chr int rand 256 } 1 .. 16;
        return "DAIR\r\n\x1a\0" . pack('C C x6 Q<', shift, 1, 0) . $id . pack('Q<', 1 + int rand 2**31) . $print . pack('Q<', 0);
    };
    my $of_other = $lab->connection(3, $port, to => 1);
    syswrite $of_other, $preamble->(255);
    Lab::ready($of_other, 'read', 5) and sysread $of_other, my $answer, 64;
    my $version = ord substr $answer // '', 8, 1;
    ok($version, 'whoever speaks another version hears which one it should be') or diag(length $answer // 0);
    my @open;
    for my $k (1 .. 500) {
        my $s = $lab->connection(3, $port, to => 1);
        push @open, $s;
        next if $k % 2;
        my $preamble = $preamble->($version);
        die 'not a preamble' if length $preamble != 64;
        my $more = $k % 4 ? '' : "\x16\x03\x01" . pack('n', 200) . join '', map { chr int rand 256 } 1 .. 200;
        my $sent = syswrite $s, $preamble . $more;
        die "syswrite: $!" if ($sent // 0) != length $preamble . $more;
    }
    # The right preamble is answered by one: this is the door, and it was the right knock.
    my $back = 0;
    my $greets = sub { my ($s, $said) = (shift, ''); return Lab::ready($s, 'read', 0) && sysread($s, $said, 64) && $said =~ /\ADAIR\r\n/ };
    eval { Lab::await { $back = grep { $greets->($_) } @open[400 .. 499] } 5, 'a preamble' };
    cmp_ok($back, '>', 0, "a right preamble is answered ($back of the last fifty)");
    my $begin = Lab::now();
    same($nodes, 1, '500 half-open connections: it answers');
    cmp_ok(Lab::now() - $begin, '<', 10, sprintf 'within %.1f s', Lab::now() - $begin);
    is($nodes->status(1)->{cluster}{epoch}, $epoch, 'in the same epoch');
    is(scalar @{$nodes->status(1)->{cluster}{nodes}}, 2, 'of two nodes');
    my $now = $nodes->size(1);
    cmp_ok($now->{rss} - $size->{rss}, '<', 8 << 20, sprintf 'memory grew by %d KiB', ($now->{rss} - $size->{rss}) / 1024);
    cmp_ok($now->{peak}, '<=', 32 << 20, sprintf 'and was within the budget, %.1f MiB at most', $now->{peak} / 1048576);
    $begin = Lab::now();
    $nodes->start(3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, sprintf 'and takes in a node that has the key, %.1f s after its start', Lab::now() - $begin)
      or diag($@);
    close $_ for @open;
    my @said = $nodes->log_of(1) =~ /refused \S+, (which .*)/g;
    cmp_ok(scalar @said, '<=', 6, 'all of it is a few lines in its log') or diag(join "\n", @said);
    my $half_open = qr/does not go on with them|comes at a time with many|does not say who it is in time/;
    cmp_ok(scalar(grep { /sent what no node sends/ } @said), '==', 1, 'garbage is one of them');
    cmp_ok(scalar(grep { /$half_open/ } @said), '>=', 1, 'half-open connections are another');
    my $counts = $nodes->status(1)->{net}{refused};
    cmp_ok($counts->{garbage}, '>=', 40, "counted: $counts->{garbage} times garbage");
    my $n_half = $counts->{displaced} + $counts->{postponed} + $counts->{timed_out};
    cmp_ok($n_half, '>=', 250, "counted: $n_half half-open");
    is($counts->{other_version}, 1, 'counted: one of another version');
    is($counts->{wrong_key}, 0, 'and nobody was told that its key is wrong');
    same($nodes, 3, 'and they answer');
    $nodes->end($_) for 1 .. 3;
}

# ---- another key, and the cluster's address: it dials, again and again
{
    my $nodes = cluster(3);
    chomp(my $other = dair(['keygen'])->{out});
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $lab   = $nodes->{lab};
    my $epoch = $nodes->status(1)->{cluster}{epoch};
    my @peers = map { $lab->address($_) . ':9998' } 1, 2;
    $nodes->{of}{3} = {key => $other, args => ['--discovery', 'off', '--peers', "$peers[0],$peers[1]"]};
    $nodes->start(3);
    # Connections that were begun in its network: nobody else begins any there.
    my $dials = sub {
        my @tcp = grep { /^Tcp: \d/ } split /^/, $lab->on(3, sub { Lab::slurp('/proc/thread-self/net/snmp') });
        return (split ' ', $tcp[0])[5];
    };
    ok(eval { Lab::await { $dials->() >= 8 } 30, 'eight dials' }, 'a node with another key that is told where the others are dials them')
      or diag($dials->() . ' dials', $nodes->trouble);
    note($dials->() . ' dials');
    ok(eval { $nodes->serving(1, 3) }, 'it serves by itself') or diag($@);
    is(scalar @{$nodes->status(3)->{cluster}{nodes}}, 1, 'and knows nobody');
    for my $i (1, 2) {
        my $status = $nodes->status($i);
        is($status->{cluster}{epoch}, $epoch, "node $i goes on in the same epoch");
        is(scalar @{$status->{cluster}{nodes}}, 2, "node $i counts two nodes");
        cmp_ok($status->{net}{refused}{wrong_key}, '>=', 2, "node $i has counted it");
        my @said = grep { /refused/ } split /\n/, $nodes->log_of($i);
        is(scalar @said, 1, "node $i says so once") or diag(join "\n", @said);
        my $from = $lab->address(3);
        like($said[0] // '', qr/warn +refused \Q$from\E, which is not of this cluster: .*another cluster key/, 'who and why');
    }
    is(scalar(() = $nodes->log_of(3) =~ /which is not of this cluster/g), 1, 'and the stranger, too, is told why once');
    same($nodes, $_, "node $_ answers") for 1, 2;
    $nodes->end($_) for 1 .. 3;
}

# A child that listens on node I's cluster port: (its pid, or 0 in it; the socket).
sub listener {
    my ($lab, $i) = @_;
    my $listener = $lab->on($i, sub { socket my $h, AF_INET, SOCK_STREAM, 0 or die "socket: $!"; $h });
    setsockopt $listener, SOL_SOCKET, SO_REUSEADDR, 1;
    bind $listener, pack_sockaddr_in(9998, INADDR_ANY) or die "bind: $!";
    listen $listener, 16 or die "listen: $!";
    my $pid = fork // die "fork: $!";
    return ($pid, $listener) if $pid;
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    $SIG{PIPE} = 'IGNORE';
    return (0, $listener);
}

# ---- a node of another version
{
    my $nodes = cluster(2);
    my $lab   = $nodes->{lab};
    my ($pid, $listener) = listener($lab, 2);
    while (!$pid) {
        accept my $from, $listener or next;
        next unless 64 == (sysread($from, my $preamble, 64) // 0);
        substr $preamble, 8, 1, chr 1 + ord substr $preamble, 8, 1;
        syswrite $from, $preamble;
    }
    my $at = $lab->address(2);
    $nodes->{of}{1} = {args => ['--discovery', 'off', '--peers', "$at:9998"]};
    $nodes->start(1);
    my @alert;
    ok(eval { Lab::await { @alert = map { "$_->{code}: $_->{text}" } @{($nodes->status(1) // {})->{alerts} // []} } 15; 1 }, 'a node of another version is named to the user')
      or diag($nodes->trouble);
    like("@alert", qr/\Aother_version: cannot work with the node at \Q$at\E: the node speaks version \d+ .* this one version \d+: update the older\z/, 'by its address, with a remedy');
    cmp_ok($nodes->status(1)->{net}{refused}{other_version}, '>', 0, 'it is counted');
    is($nodes->status(1)->{net}{refused}{garbage}, 0, 'it does not count as garbage');
    kill 'TERM', $pid;
    waitpid $pid, 0;
}

# ---- a genuine opening, recorded on the way and said again by another
# A tap in node VIA: what comes to its port 9998 goes to node TO, and what the dialler says of each
# connection is kept in a file; the number of the process.
sub tap {
    my ($lab, $via, $to, $keep) = @_;
    my ($pid, $listener) = listener($lab, $via);
    return ($pid, $listener) if $pid;
    my (@pair, $n);
    for (;;) {
        my $bits = '';
        vec($bits, fileno $_, 1) = 1 for $listener, map { @$_[0, 1] } @pair;
        select $bits, undef, undef, 1 or next;
        if (vec $bits, fileno $listener, 1) {
            accept my $from, $listener or next;
            my $there = eval { $lab->connection($via, 9998, to => $to) } or next;
            open my $file, '>:raw', "$keep-" . ++$n or POSIX::_exit(1);
            $file->autoflush(1);
            push @pair, [$from, $there, $file];
            next;
        }
        for my $p (@pair) {
            for my $way (0, 1) {
                next unless $p->[$way] && vec $bits, fileno $p->[$way], 1;
                my $got = sysread $p->[$way], my $part, 65536;
                next if !defined $got && $!{EAGAIN};
                print {$p->[2]} $part if $got && !$way;
                $p->[1 - $way]->blocking(1);
                next if $got && $p->[1 - $way]->syswrite($part);
                close $_ for @$p;
                @$p = ();
                last;
            }
        }
        @pair = grep { @$_ } @pair;
    }
}
{
    my $nodes = cluster(4);
    my $lab   = $nodes->{lab};
    # The lower id is the client of TLS and dials the channels of data: all of it passes the tap.
    for ([1, 'f'], [2, '0']) {
        mkdir "$nodes->{dir}/state-$_->[0]";
        write_file("$nodes->{dir}/state-$_->[0]/node-id", $_->[1] x 31 . "1\n");
    }
    my ($tap, $listener) = tap($lab, 3, 1, "$nodes->{dir}/said");
    $nodes->{of}{1} = {args => ['--discovery', 'off']};
    $nodes->{of}{2} = {args => ['--discovery', 'off', '--peers', $lab->address(3) . ':9998']};
    $nodes->start(1, 2);
    ok(eval { $nodes->serving(2, 1, 2) }, 'a node that dials through a tap works with the other') or diag($@);
    same($nodes, 1, 'they answer');
    my @said = map { read_file($_) } sort glob "$nodes->{dir}/said-*";
    cmp_ok(scalar @said, '>=', 2, 'recorded: a control and a data channel');
    my %kind = map { (ord substr($_, 9, 1)) => 1 } grep { length > 64 } @said;
    is(scalar keys %kind, 2, 'of two kinds');
    is(scalar(grep { /\ADAIR\r\n\x1a\0/ && substr($_, 64, 1) eq "\x16" } @said), scalar @said, 'each begins with a preamble and a handshake of TLS');

    # All of it again from node 4: at once, and in the steps of a handshake; while the true one is
    # connected, and when it is gone. What is refused is closed.
    my $replay = sub {
        my ($name) = @_;
        my $before = $nodes->status(1);
        my $closed = 0;
        my @open;
        for my $said (@said) {
            for my $steps (1, 2) {
                my $s = $lab->connection(4, 9998, to => 1);
                push @open, $s;
                local $SIG{PIPE} = 'IGNORE';
                my @part = $steps == 1 ? ($said) : (substr($said, 0, 64), substr($said, 64));
                for my $part (@part) {
                    syswrite $s, $part;
                    Lab::ready($s, 'read', 3) and sysread $s, my $answer, 65536 if @part > 1;
                }
            }
        }
        for my $s (@open) {
            my $end = Lab::now() + 8;
            my $got = 1;
            while ($got && Lab::now() < $end) {
                next unless Lab::ready($s, 'read', 0.5);
                $got = sysread $s, my $part, 65536;
                $got = 1 if !defined $got && $!{EAGAIN};
            }
            $closed++ if !$got;
        }
        is($closed, scalar @open, "$name: each of " . @open . ' replays is closed');
        my ($after, %more);
        my $counted = sub {
            $after = $nodes->status(1);
            %more  = map { $_ => $after->{net}{refused}{$_} - $before->{net}{refused}{$_} } keys %{$before->{net}{refused}};
            return $more{wrong_key} + $more{garbage} >= @open;
        };
        ok(eval { Lab::await { $counted->() } 5 }, "$name: and counted") or diag(join ', ', map { "$_ $more{$_}" } sort keys %more);
        is($after->{cluster}{epoch}, $before->{cluster}{epoch}, "$name: the epoch is the same");
        is_deeply([map { "$_->{id} " . ($_->{working} ? 1 : 0) } @{$after->{cluster}{nodes}}],
            [map { "$_->{id} " . ($_->{working} ? 1 : 0) } @{$before->{cluster}{nodes}}], "$name: so are the members");
        is($after->{node}{state}, $before->{node}{state}, "$name: and the state");
    };
    $replay->('beside the true node');
    same($nodes, $_, "beside the true node: node $_ answers") for 1, 2;
    my @refused = grep { /refused/ } split /\n/, $nodes->log_of(1);
    my $from    = $lab->address(4);
    cmp_ok(scalar @refused, '<=', 2, 'a line or two in the log') or diag(join "\n", @refused);
    like(join("\n", @refused), qr/warn +refused \Q$from\E, which /, 'name the one who replays');
    is(scalar(() = $nodes->log_of(1) =~ /is connected/g), 1, 'only the true node ever counted as connected');
    $nodes->kill_node(2);
    ok(eval { $nodes->serving(1, 1) }, 'the true node dies') or diag($@);
    $replay->('without the true node');
    same($nodes, 1, 'without the true node: node 1 answers');
    is(scalar(() = $nodes->log_of(1) =~ /is connected/g), 1, 'still nobody else counted as connected');
    kill 'KILL', $tap;
    waitpid $tap, 0;
    close $listener;
    $nodes->end(1);
}

# ---- packets from nowhere on every port that is open to the network
{
    my $nodes = cluster(3);
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $lab = $nodes->{lab};
    srand 4;
    my $epoch = $nodes->status(1)->{cluster}{epoch};
    for my $i (1 .. 2000) {
        my $s = $nodes->{spray} //= $lab->on(3, sub { socket my $h, AF_INET, SOCK_DGRAM, 0 or die "socket: $!"; $h });
        my $packet = join '', map { chr int rand 256 } 1 .. 12 + rand 300;
        substr($packet, 0, 12, "\0\0\x84\0\0\0\0\x01\0\0\0\0") if $i % 2;
        send $s, $packet, 0, pack_sockaddr_in(5353, inet_aton($i % 3 ? '224.0.0.251' : $lab->address(1)));
    }
    same($nodes, 2, 'after 2000 packets of garbage to port 5353 they answer');
    is($nodes->status(1)->{cluster}{epoch}, $epoch, 'in the same epoch');
    $nodes->end($_) for 1, 2;
}

# ---- a link that flaps
{
    my $nodes = cluster(3);
    $nodes->start(1 .. 3)->serving(3, 1 .. 3);
    my $lab   = $nodes->{lab};
    my $epoch = $nodes->status(1)->{cluster}{epoch};
    $lab->bad_line(2, delay_ms => 2);                  # so that answers take a while
    my %long  = (prompt => 'A node', max_tokens => 100);
    my $whole = $nodes->alone(%long);
    my $begin = Lab::now();
    my $flaps = 0;
    my $in_flight = 0;
    my @answer;
    while (Lab::now() - $begin < 16) {
        my @new = map { $nodes->ask($_, %long) } 1, 3;
        push @answer, @new;
        eval { Lab::await { $_->read_on(0) for @new; 2 == grep { @{$_->{events}} || $_->{ended} } @new } 1, 'answers begin' };
        $_->read_on(0) for grep { !$_->{ended} } @answer;
        $in_flight += grep { @{$_->{events}} && !$_->{ended} } @answer;
        $lab->cut([3], [1, 2]);
        select undef, undef, undef, 0.3 + rand 1.2;    # the disturbance itself
        $lab->heal();
        select undef, undef, undef, 0.3 + rand 1.2;
        $flaps++;
    }
    $lab->bad_line(2);
    cmp_ok($in_flight, '>=', 4, "$flaps cuts, " . @answer . " answers, $in_flight times one was under way at a cut");
    my $spent = ($nodes->status(1)->{cluster}{epoch} // 0) - $epoch;
    cmp_ok($spent, '<=', 2 * $flaps, "$flaps flaps in 20 s cost $spent epochs");
    $nodes->{patience} = 90;
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'when the link is good again, all three serve') or diag($@);
    same($nodes, 3, 'and answer');
    Lab::gather(60, @answer);
    my @bad = grep { ((Nodes::whole_text($_))[0] // '') ne $whole } @answer;
    my @bad_is = map { my ($text, $why) = Nodes::whole_text($_); $text // $why } @bad;
    is(scalar @bad, 0, 'and all that was asked while the link flapped is whole, the same text') or diag(join "\n", @bad_is);
    $nodes->end($_) for 1 .. 3;
}
done_testing;
