#!/usr/bin/perl
# admit.t - only as many answers are begun as go on when a node is lost, whichever it is; and who asks for
# more than that is told.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();

# A node that holds six contexts leads one that by itself holds one.
my $nodes = Nodes->new(lab => Lab->new(nodes => 2));
$nodes->{of} = {1 => {memory => '64M'}, 2 => {memory => '16M'}};
my $lab = $nodes->{lab};
$nodes->start(1)->serving(1, 1);
is($nodes->status(1)->{plan}{after_loss}, undef, 'a node with nobody beside it: nothing is said of a loss');
$nodes->start(2)->serving(2, 1, 2);
is($nodes->leader(2), 1, 'the large one of two leads');
# What the leader has room for, the other knows from its next beat.
my $status;
eval { Lab::await { $status = $nodes->status(2); $status->{load}{slots} } 5, 'the leader tells what it holds' } or diag($@);
my ($slots, $left) = ($status->{load}{slots}, $status->{plan}{after_loss});
cmp_ok($slots, '>=', 2, "together they hold $slots contexts");
is_deeply($left, {context => 512, slots => 1}, 'and one whichever of them is lost');
is_deeply($nodes->status(1)->{plan}{after_loss}, $left, 'as both say');

my @ask = map { {prompt => $_, max_tokens => 300, temperature => 1, seed => 7} } 'A node', 'Once upon a time', 'The cat';
my @right = map { $nodes->alone(%$_) } @ask;
$lab->bad_line(1, delay_ms => 3);
my @answer = map { $nodes->ask(2, %$_) } @ask;
eval { await { $_->read_on(0) for @answer; grep { @{$_->{events}} > 20 } @answer } 60, 'the middle of an answer' } or diag($@, $nodes->trouble);
my $begun = grep { @{$_->{events}} } @answer;
ok(!grep({ $_->{ended} } @answer), "the leader dies with $begun answers under way of three");
$nodes->kill_node(1);
$lab->bad_line(1);
$nodes->serving(1, 2);
my $most = 0;
eval {
    await {
        my $n = $nodes->status(2)->{load}{running};
        $most = $n if $n > $most;
        $_->read_on(0) for grep { !$_->{ended} } @answer;
        $most >= $begun || !grep { !$_->{ended} } @answer
    } 60, 'all run at once, or have ended';
} or diag($@);
cmp_ok($most, '>=', $begun, 'none of them waits for another');
ok(Lab::gather(60, @answer), 'all three end') or diag($nodes->trouble);
for my $k (0 .. 2) {
    my ($text, $why) = Nodes::whole_text($answer[$k]);
    is($text, $right[$k], 'whole, the same text') or diag($why);
}
$nodes->end(2);
done_testing;
