#!/usr/bin/perl
# cluster.t - nodes that find each other: how soon they serve together, that the text is the one of a
# single node whatever the network is like, and what they do when it falls apart and comes together.
# Deaths in the middle of answers are kill.t's.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my %ask = (prompt => 'A node', max_tokens => 24);

sub cluster {
    my ($n, %o) = @_;
    return Nodes->new(lab => Lab->new(nodes => $n), memory => '32M', %o);
}
my $right;
sub same { my ($nodes, $i, $name) = @_; $right //= $nodes->alone(%ask); is($nodes->text($i, %ask), $right, $name) }

# ---- found by multicast, with nothing configured but the key
for my $n (1, 2, 3, 5) {
    my $nodes = cluster($n);
    $nodes->start(1 .. $n);
    my $begin = now();
    my @status = eval { $nodes->serving($n, 1 .. $n) };
    ok(scalar @status, sprintf '%d node%s: serving %.1f s after the last start', $n, $n > 1 ? 's' : '', now() - $begin) or diag($@);
    next unless @status;
    is($status[0]{node}{state}, 'READY', "$n: READY");
    same($nodes, $_, "$n: the text from node $_") for $n > 1 ? (1, $n) : 1;
    is($nodes->end($_), 0, "$n: node $_ ends in good order") for reverse 1 .. $n;
}

# ---- a node more, and one with another key
{
    my $nodes = cluster(4);
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $begin = now();
    $nodes->start(3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, sprintf 'a third node works %.1f s after its start', now() - $begin) or diag($@);
    same($nodes, 3, 'and answers');
    $nodes->{of}{4} = {key => dair(['keygen'])->{out} =~ s/\s+\z//r};
    $nodes->start(4)->serving(1, 4);
    is(scalar @{$nodes->status(4)->{cluster}{nodes}}, 1, 'one with another key is a cluster of its own');
    is(scalar @{$nodes->status(1)->{cluster}{nodes}}, 3, 'and the others are three');
}

# ---- two halves, and one again
{
    my $nodes = cluster(4);
    $nodes->start(1 .. 4)->serving(4, 1 .. 4);
    my $lab   = $nodes->{lab};
    my $begin = now();
    $lab->cut([1, 2], [3, 4]);
    my $halves = eval { $nodes->serving(2, 1, 2) && $nodes->serving(2, 3, 4) };
    ok($halves, sprintf 'cut in two: each half serves after %.1f s', now() - $begin) or diag($@);
    if ($halves) { same($nodes, $_, "the half of node $_ answers") for 1, 4 }
    $begin = now();
    $lab->heal();
    my $whole = eval { $nodes->serving(4, 1 .. 4) };
    ok($whole, sprintf 'healed: one cluster of four after %.1f s', now() - $begin) or diag($@);
    same($nodes, 2, 'which answers') if $whole;

    # What 1 says does not come to 3, though 3 is heard: such a pair does not work together.
    $begin = now();
    $lab->cut_one_way([1], [3]);
    my $out;    # who is left out
    my $some = eval {
        await {
            my %s = map { $_ => $nodes->status($_) // return 0 } 1 .. 4;
            my @working = map { my $i = $_; scalar grep { $_->{working} } @{$s{$i}{cluster}{nodes}} } 1 .. 4;
            for my $left (1, 3) {
                my @rest = grep { $_ != $left } 1 .. 4;
                next if grep { $s{$_}{node}{state} ne 'DEGRADED' || $working[$_ - 1] != 3 } @rest;
                $out = $left;
            }
            $out;
        } 30, 'a cluster without one of the two';
    };
    ok($some, sprintf 'a link that works one way counts as down: the other three serve after %.1f s', now() - $begin)
      or diag($@, $nodes->trouble);
    if ($some) {
        same($nodes, 2, 'they answer');
        my $body   = '{"prompt": "A node", "max_tokens": 4}';
        my $answer = eval { $lab->http($out, POST => '/v1/completions', seconds => 20, body => $body) };
        ok($answer && $answer->{status} =~ /^(?:200|503)$/, "the one left out ($out) answers or refuses, soon")
          or diag($answer ? $answer->{body} : $@);
        note("$answer->{status} $answer->{body}") if $answer;
    }
    $lab->heal();
    ok(eval { $nodes->serving(4, 1 .. 4) }, 'healed') or diag($@);
}

# ---- lines that are slow, far or bad
{
    my $nodes = cluster(3);
    $nodes->start(1 .. 3)->serving(3, 1 .. 3);
    my $lab = $nodes->{lab};
    my $was = $lab->bytes(2);
    same($nodes, 2, 'a good line');
    my $is = $lab->bytes(2);
    note(sprintf 'node 2 sent %d bytes and received %d for %d tokens', $is->{sent} - $was->{sent},
        $is->{received} - $was->{received}, $ask{max_tokens});
    $lab->rate($_, '10mbit') for 1 .. 3;
    my $begin = now();
    same($nodes, 2, '10 Mbit/s');
    note(sprintf '%.1f s', now() - $begin);
    $lab->rate($_) for 1 .. 3;
    $lab->bad_line(2, delay_ms => 5, jitter_ms => 5);
    $begin = now();
    same($nodes, 1, 'one node 5 to 10 ms away');
    note(sprintf '%.1f s', now() - $begin);
    $lab->bad_line(2, loss_percent => 3);
    $begin = now();
    same($nodes, 1, 'three frames in a hundred lost');
    my $line = $lab->line_counts(2);
    note(sprintf '%.1f s, frames lost: %d and %d', now() - $begin, $line->{up}{lost}, $line->{down}{lost});
    ok($line->{up}{lost} + $line->{down}{lost} > 0, 'some were');
    $lab->bad_line(2);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'and it is a cluster of three still, or again') or diag($@);
}
done_testing;
