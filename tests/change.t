#!/usr/bin/perl
# change.t - a cluster that changes as it is meant to: a key that is being changed node by node, a node
# that comes in the middle of a step; and one that lives in a network without IPv4, or behind a firewall.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Errno;
use IO::Socket::INET;
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my %ask   = (prompt => 'A node', max_tokens => 24);
my $right = Nodes->new(lab => undef, key => 'none')->alone(%ask);

# ---- no IPv4 anywhere, not even on the loopback
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3, six => 1), memory => '32M');
    unlike($nodes->{lab}->ip($nodes->{lab}->net(2), 'address show'), qr/inet /, 'nodes without an IPv4 address');
    $nodes->start(1 .. 3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'find each other and serve') or diag($@);
    is(eval { $nodes->text($_, %ask) }, $right, "with the right text from node $_") or diag($@) for 1 .. 3;
    like($nodes->status(1)->{cluster}{nodes}[1]{address}, qr/^\[[0-9a-f:]+(%\w+)?\]:8080$/, 'and show where the others are');
    my $leader = $nodes->leader(1);
    my ($front) = grep { $_ != $leader } 1 .. 3;
    $nodes->{lab}->bad_line($leader, delay_ms => 2);
    my $answer = $nodes->under_way($front, %ask);
    $nodes->kill_node($leader);
    Lab::gather(30, $answer);
    my ($text, $why) = Nodes::whole_text($answer);
    is($text, $right, 'the leader dies in the middle of an answer: it is whole') or diag($why);
    $nodes->end($_) for $nodes->running;
}

# ---- a node that nobody can begin a connection to
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), memory => '32M');
    for my $i (1 .. 3) {    # the others, of lower ids, would dial
        mkdir "$nodes->{dir}/state-$i";
        write_file("$nodes->{dir}/state-$i/node-id", $i x 32 . "\n");
    }
    $nodes->{lab}->shut(3);
    my $reached = $nodes->{lab}->on(1, sub { IO::Socket::INET->new(PeerAddr => $nodes->{lab}->address(3), PeerPort => 9998, Timeout => 1) });
    ok(!$reached && !$!{ECONNREFUSED}, 'a firewall drops what begins a connection');
    $nodes->start(1 .. 3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'the node behind it begins all of its own and serves with the others') or diag($@, $nodes->trouble);
    is($nodes->status(1)->{cluster}{epoch}, $nodes->status(3)->{cluster}{epoch}, 'in one epoch');
    is(eval { $nodes->text(3, %ask) }, $right, 'with the right text') or diag($@);
    unlike($nodes->log_of($_), qr/left out|broke/, "node $_ blames nobody") for 1 .. 3;
    $nodes->end($_) for 1 .. 3;
}

# ---- the key is changed: every stage, and the one where it is done wrongly
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), memory => '32M');
    my ($old, $new) = map { dair(['keygen'])->{out} =~ s/\s+\z//r } 1, 2;
    my %stage = (old => {key => $old}, both => {key => $new, args => ['--cluster-key-old', $old]}, new => {key => $new});
    my $become = sub {
        my ($i, $stage) = @_;
        $nodes->end($i) if $nodes->{node}{$i};
        $nodes->{of}{$i} = $stage{$stage};
        $nodes->start($i);
    };
    $become->($_, 'old') for 1 .. 3;
    $nodes->serving(3, 1 .. 3);
    for my $step ([1, 'both'], [2, 'both'], [3, 'both'], [2, 'new'], [3, 'new'], [1, 'new']) {
        $become->(@$step);
        my $told = join ', ', map { my $i = $_; my ($s) = grep { $stage{$_} == $nodes->{of}{$i} } keys %stage; $s } 1 .. 3;
        ok(eval { $nodes->serving(3, 1 .. 3) }, "keys $told: three serve together") or diag($@);
        is(eval { $nodes->text($step->[0], %ask) }, $right, 'with the right text') or diag($@);
        like($nodes->log_of(1), qr/a node still uses the old cluster key/, 'and it is said what is left to do') if $told eq 'both, old, old';
    }
    # Too fast: one has the old one only, one the new one only, and they cannot meet.
    $become->(1, 'old');
    $become->(2, 'both');
    my $pair = sub {
        my @s = map { $nodes->status($_) // return 0 } 1 .. 3;
        return 0 unless $s[1]{cluster}{leader};
        return 2 == grep { ($_->{cluster}{leader} // '') eq $s[1]{cluster}{leader} && 2 == grep { $_->{working} } @{$_->{cluster}{nodes}} } @s;
    };
    ok(eval { Lab::await { $pair->() } 30, 'two serve' }, 'keys old, both, new: two of the three serve together') or diag($@, $nodes->trouble);
    is(eval { $nodes->text(2, %ask) }, $right, 'with the right text') or diag($@);
    $become->(1, 'new');
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'which mends it') or diag($@);
    $nodes->end($_) for 1 .. 3;
}

# ---- a node comes in the middle of a step that takes long: the step is ended first, and not thrown away
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), memory => '32M');
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $leader = $nodes->leader(1);
    my ($other) = grep { $_ != $leader } 1, 2;
    # Every step has as many gathers, whether it reads a prompt or makes the next token, and an epoch begins with
    # one: what was begun and thrown away shows as more of them than that.
    my $gathers = sub { return $nodes->status($leader)->{net}{gathers} };
    my @count   = $gathers->();
    for my $n (1, 3) { $nodes->text($leader, %ask, max_tokens => $n); push @count, $gathers->() }
    my $step = $count[1] - $count[0];
    is($count[2] - $count[1], 3 * $step, "three tokens take three times the gathers of one, $step");
    my ($answer, $before, $now);
    for (1 .. 5) {    # a machine that is busy may lose the node that is far: then it is not the new one that ends the epoch
        $nodes->{lab}->bad_line($other, delay_ms => 60);
        $before = $gathers->();
        my $epoch = $nodes->status($leader)->{cluster}{epoch};
        $answer = $nodes->under_way($leader, %ask, stream_options => {include_usage => JSON::PP::true});
        $nodes->start(3);
        eval { Lab::await { $answer->read_on(0); $now = $nodes->status($leader); $now && $now->{cluster}{epoch} != $epoch } 30, 'the next epoch' }
          or diag($@, $nodes->trouble);
        last if 3 == grep { $_->{working} } @{$now->{cluster}{nodes}};
        $nodes->{lab}->bad_line($other);
        $nodes->end(3);
        $nodes->serving(2, 1, 2);
    }
    is(scalar(grep { $_->{working} } @{$now->{cluster}{nodes}}), 3, 'a node comes while an answer is under way') or diag($nodes->trouble);
    ok(!$answer->{ended}, 'which has not ended');
    $nodes->{lab}->bad_line($other);
    Lab::gather(60, $answer);
    my ($text, $why) = Nodes::whole_text($answer);
    is($text, $right, 'the answer is whole, the same text') or diag($why);
    my ($usage) = map { /^\{/ ? JSON::PP::decode_json($_)->{usage} // () : () } map { $_->{data} } @{$answer->{events}};
    my $made = $usage->{completion_tokens} // 0;
    is($gathers->() - $before, $made * $step + 1, "of the steps for its $made tokens none was thrown away");
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'three serve') or diag($@);
    $nodes->end($_) for 1 .. 3;
}
done_testing;
