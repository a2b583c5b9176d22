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
        syswrite $s, join '', map { chr int rand 256 } 1 .. 1 + rand 400;
        close $s;
    }
    # What node 2 says to node 1, said again by another: a recorded opening.
    my $opening = '';
    {
        my $s = $lab->connection(3, $port, to => 1);
        my $end = Lab::now() + 5;
        while (length $opening < 64 && Lab::now() < $end) { Lab::ready($s, 'read', 0.2) and sysread $s, $opening, 64, length $opening }
        syswrite $s, $opening;    # its own opening back to it
        my $rest = '';
        Lab::ready($s, 'read', 5) and sysread $s, $rest, 100;
        is($rest, '', 'a node that is shown its own opening says no more');
        close $s;
    }
    my @open = map { $lab->connection(3, $port, to => 1) } 1 .. 500;
    my $begin = Lab::now();
    same($nodes, 1, '500 half-open connections: it answers');
    cmp_ok(Lab::now() - $begin, '<', 10, sprintf 'within %.1f s', Lab::now() - $begin);
    $begin = Lab::now();
    $nodes->start(3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, sprintf 'and takes in a node that has the key, %.1f s after its start', Lab::now() - $begin)
      or diag($@);
    close $_ for @open;
    my $now = $nodes->size(1);
    cmp_ok($now->{rss} - $size->{rss}, '<', 8 << 20, sprintf 'memory grew by %d KiB', ($now->{rss} - $size->{rss}) / 1024);
    cmp_ok(scalar(() = $nodes->log_of(1) =~ /refused/g), '<=', 6, 'all of it is a few lines in its log');
    same($nodes, 3, 'and they answer');
    $nodes->end($_) for 1 .. 3;
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
    my $begin = Lab::now();
    my $flaps = 0;
    while (Lab::now() - $begin < 20) {
        $lab->cut([3], [1, 2]);
        select undef, undef, undef, 0.3 + rand 1.2;    # the disturbance itself
        $lab->heal();
        select undef, undef, undef, 0.3 + rand 1.2;
        $flaps++;
    }
    my $spent = ($nodes->status(1)->{cluster}{epoch} // 0) - $epoch;
    cmp_ok($spent, '<=', 2 * $flaps, "$flaps flaps in 20 s cost $spent epochs");
    $nodes->{patience} = 90;
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'when the link is good again, all three serve') or diag($@);
    same($nodes, 3, 'and answer');
    $nodes->end($_) for 1 .. 3;
}
done_testing;
