# chaos.pl - rounds of killing nodes in the middle of answers: `kill.t` runs a few, `make soak` many.
# Each round asks one node, kills others at a random token (or while the prompt is read, or a second
# one while the cluster recovers), and compares the whole answer with that of one undisturbed process.
package Chaos;
use strict;
use warnings;
use Lab ();
use Nodes;
use Test::More;

sub median { my @v = sort { $a <=> $b } @_; return @v ? $v[@v / 2] : 0 }

# What happens in a round: who is killed and when.
my @plans = qw(worker leader all-but-one prefill second);

# rounds(NODES, COUNT, name =>, ask => {..}, n =>, seed =>): the nodes are running and serve.
sub rounds {
    my ($nodes, $count, %o) = @_;
    my $n = $o{n};
    srand $o{seed};
    my (@gap, @size, $wrong, $incomplete);
    my %want;
    for my $temperature (0, 0.8) {
        $want{$temperature} = $nodes->alone(%{$o{ask}}, temperature => $temperature, seed => 7);
    }
    for my $round (1 .. $count) {
        my $plan        = $plans[($round - 1) % @plans];
        my $temperature = $round % 2 ? 0 : 0.8;
        my ($gap, $text) = eval { round($nodes, $plan, %o, ask => {%{$o{ask}}, temperature => $temperature, seed => 7}) };
        if (!defined $text) {
            diag("round $round ($plan): $@");
            $incomplete++;
            last if $incomplete > 3;
        } elsif ($text ne $want{$temperature}) {
            diag("round $round ($plan, temperature $temperature): another text\n  got  $text\n  want $want{$temperature}");
            $wrong++;
        }
        push @gap, $gap if defined $gap;
        my @gone = grep { my $i = $_; !grep { $_ == $i } $nodes->running } 1 .. $n;
        $nodes->start(@gone);
        eval { $nodes->serving($n, 1 .. $n) } or do { diag("after round $round ($plan): $@"); $incomplete++; last };
        # Node 1 is never killed: what it holds must not grow.
        push @size, $nodes->size(1);
        note(sprintf 'round %d %s: %.2f s to the next token', $round, $plan, $gap // 0);
    }
    is($incomplete // 0, 0, "$o{name}: every answer of $count rounds is whole");
    is($wrong // 0, 0, "$o{name}: and equal to that of one undisturbed process");
    my @sorted = sort { $a <=> $b } @gap;
    cmp_ok(median(@gap), '<=', 3, sprintf '%s: from kill to next token, median %.2f s, worst %.2f s of %d', $o{name}, median(@gap),
        $sorted[-1] // 0, scalar @gap);
    flat($o{name}, @size);
    return @gap;
}

# Files, threads and memory of the node that lives through all rounds: the later ones as the earlier.
sub flat {
    my ($name, @size) = @_;
    return if @size < 6;
    my @early = @size[1 .. 3];
    my @late  = @size[-3 .. -1];
    for my $what (qw(fds threads rss)) {
        my ($a, $b) = (median(map { $_->{$what} } @early), median(map { $_->{$what} } @late));
        cmp_ok($b, '<=', $what eq 'rss' ? $a * 1.1 + (1 << 20) : $a + 1, "$name: $what stay as they are ($a, later $b)");
    }
}

sub round {
    my ($nodes, $plan, %o) = @_;
    my $lab     = $nodes->{lab};
    my $leader  = $nodes->leader(1);
    my @others  = grep { $_ != 1 } $nodes->running;
    my @workers = grep { $_ != $leader } @others;
    my @victims =
        $plan eq 'leader'      ? ($leader != 1 ? $leader : $workers[rand @workers])
      : $plan eq 'all-but-one' ? @others
      :                          $workers[rand @workers];
    my $answer = $nodes->ask(1, %{$o{ask}});
    my $most   = ($o{ask}{max_tokens} // 20) * 0.8;
    my $at     = $plan eq 'prefill' ? 0 : 1 + int rand $most;
    my $end    = Lab::now() + 60;
    while (@{$answer->{events}} < $at && !$answer->{ended}) {
        die "no token in time\n" . $nodes->trouble if Lab::now() > $end;
        $answer->read_on(0.5);
    }
    my $killed = Lab::now() - $answer->{asked};
    $nodes->kill_node($_) for @victims;
    if ($plan eq 'second') {
        # While the others recover: the time is random, the wait is the disturbance itself.
        select undef, undef, undef, rand 0.4;
        my @left = grep { my $i = $_; $i != 1 && grep { $_ == $i } $nodes->running } @others;
        $nodes->kill_node($left[rand @left]) if @left;
    }
    my $before = @{$answer->{events}};
    Lab::gather(90, $answer) or die "no whole answer within 90 s\n" . $nodes->trouble;
    die "the connection broke\n" if $answer->{broken};
    my @after = grep { $_->{at} > $killed } @{$answer->{events}};
    return (@after ? $after[0]{at} - $killed : undef, Nodes::text_of($answer));
}

1;
