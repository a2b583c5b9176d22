#!/usr/bin/perl
# front.t - the node that took a request, and those that compute it: never nodes with another model,
# never for one that is gone, and never less than was wished without a word.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use JSON::PP ();
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my $dir = scratch();

# ---- two models under one key: what one is asked is nonsense to the other
{
    my $other = synth("$dir/other.gguf", 'moe-tiny', 'q8_0');
    my $nodes = Nodes->new(lab => Lab->new(nodes => 4), memory => '64M');
    $nodes->{of}{$_} = {model => $other} for 3, 4;
    my %ask   = (prompt => 'one two', max_tokens => 60);
    my $right = Nodes->new(lab => undef, key => 'none', model => $other)->alone(%ask);
    $nodes->start(1 .. 4);
    $nodes->serving(2, 1, 2);
    $nodes->serving(2, 3, 4);
    my $leader = $nodes->leader(3);
    my ($front) = grep { $_ != $leader } 3, 4;
    $nodes->{lab}->bad_line($leader, delay_ms => 5);
    my $answer = $nodes->under_way($front, %ask);
    ok(!$answer->{ended}, 'the leader of one model dies in the middle of an answer');
    $nodes->kill_node($leader);
    ok(Lab::gather(30, $answer), 'it is whole') or diag($nodes->trouble);
    my ($text, $why) = Nodes::whole_text($answer);
    is($text, $right, 'and all of it is of that model') or diag($why);
    $nodes->kill_node($front);
    $nodes->start($front);
    Lab::await { $nodes->status($front) } 10, 'it is started anew';
    my $state = $nodes->status($front)->{node}{state};
    is(eval { $nodes->text($front, %ask) }, $right, "asked while it is $state it waits until it can answer itself") or diag($@);
    is(scalar(grep { $nodes->log_of($_) =~ /another model than the one asked/ } 1, 2), 0, 'nobody else was asked');
    $nodes->end($_) for $nodes->running;
}

# ---- a front with no part in the plan, as it cannot reach one of the nodes, dies
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), memory => '32M');
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $leader = $nodes->leader(1);
    my ($worker) = grep { $_ != $leader } 1, 2;
    $nodes->{lab}->cut([3], [$worker]);
    $nodes->{lab}->bad_line($worker, delay_ms => 5);
    $nodes->start(3);
    Lab::await { $nodes->status(3) } 10, 'it is started';
    my $answer = eval { $nodes->under_way(3, prompt => 'A node', max_tokens => 300) } or diag($@);
    ok($answer && !$answer->{ended}, 'a node that only the leader can reach has an answer under way');
    is(eval { $nodes->status($leader)->{load}{running} }, 1, 'which the leader computes');
    $nodes->kill_node(3);
    ok(eval { Lab::await { 0 == $nodes->status($leader)->{load}{running} } 3, 'nothing is computed' },
        'and no longer when its front is gone') or diag($@);
    $nodes->end($_) for 1, 2;
}
# ---- nodes that hold the context together, and one that is left with room for half of it
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 2), memory => '8000K', args => ['--ctx', 512, '--kv', 'f32']);
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $leader = $nodes->leader(1);
    my ($front) = grep { $_ != $leader } 1, 2;
    $nodes->{lab}->bad_line($leader, delay_ms => 5);
    my $words  = 'A node that is not there ';                  # 6 tokens
    write_file("$dir/end", '<|im_end|>');
    my ($end)  = dair(['tokenize', '--special'], from => "$dir/end")->{out} =~ /(\d+)/;
    my @on     = (logit_bias => {$end => -100});               # never ends by itself
    my $long   = $nodes->under_way($front, prompt => $words x 60, max_tokens => 100, @on);
    my $answer = $nodes->ask($front, prompt => $words x 24, max_tokens => 300, @on);
    $_->read_on(0.2) for $long, $answer;
    ok(!$long->{ended} && !$answer->{ended}, 'one answer is under way and one waits, both more than one node has memory for');
    $nodes->kill_node($leader);
    ok(Lab::gather(30, $long, $answer), 'they end') or diag($nodes->trouble);
    my ($text, $why) = Nodes::whole_text($long);
    like($why, qr/memory for 256 tokens of context, which the prompt \(\d+\) and the answer so far \([1-9]\d*\) fill/,
        'one at once, with the numbers');
    ($text, $why) = Nodes::whole_text($answer);
    like($why, qr/memory for 256 tokens of prompt and answer: this answer ends early, after [1-9]\d* of up to 300/,
        'one where the context ends, with the numbers');
    unlike(join('', map { $_->{data} } @{$_->{events}}), qr/"finish_reason": ?"/, 'and does not say that it is whole') for $long, $answer;
    my $body  = JSON::PP::encode_json({prompt => $words x 60, max_tokens => 100});
    my $again = $nodes->{lab}->http($front, POST => '/v1/completions', seconds => 20, body => $body);
    is($again->{status}, 400, 'a prompt that is too long now is the request\'s fault');
    like($again->{body}, qr/memory for 256 tokens of context/, 'and it is told so');
    $nodes->end($front);
}
done_testing;
