#!/usr/bin/perl
# held.t - three nodes answer with penalties, biases and a schema: the text is that of one process, and
# stays so when the node that leads dies in the middle of it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Lab 'isolated';
use Dair;
use JSON::PP;
use Nodes;
use Test::More;

my $schema = {
    type        => 'array',
    description => 'a schema of many words is a long message to the leader, too ' x 700,
    items       => {
        type       => 'object',
        properties => {n => {type => 'integer', minimum => 0, maximum => 9999}, s => {type => 'string', maxLength => 8}},
        required   => ['n', 's'],
        additionalProperties => JSON::PP::false,
    },
    minItems    => 8,
    maxItems    => 8,
};
my $json  = JSON::PP->new->utf8->canonical;
my $nodes = Nodes->new(
    lab        => Lab->new(nodes => 3),
    args       => ['--ctx', 512],
    alone_args => ['--ctx', 512, '--repeat-penalty', 1.2, '--presence-penalty', -0.3, '--logit-bias', '300:3',
        '--json-schema', $json->encode($schema)],
);
my %ask = (
    prompt           => 'Numbers and names of nodes: ',
    max_tokens       => 480,
    temperature      => 0.9,
    seed             => 4,
    repeat_penalty   => 1.2,
    presence_penalty => -0.3,
    logit_bias       => {300 => 3},
    json_schema      => $schema,
);
my $right = $nodes->alone(%ask);
my $list = eval { $json->decode($right) };
is(ref $list eq 'ARRAY' && @$list, 8, 'one process: a list of eight') or diag($right);
ok(!grep({ $_->{n} !~ /^\d{1,4}$/ || length $_->{s} > 8 || keys %$_ != 2 } @{$list // []}), 'each as the schema wants it');

$nodes->start(1 .. 3);
$nodes->serving(3, 1 .. 3);
is($nodes->text(2, %ask), $right, 'three nodes: the same text');
my $leader = $nodes->leader(1);
my ($front) = grep { $_ != $leader } 1 .. 3;
my $answer = $nodes->under_way($front, %ask, events => 20);
ok(!$answer->{ended}, 'an answer is under way');
$nodes->kill_node($leader);
ok(Lab::gather(60, $answer), 'it goes on without the node that led') or diag($nodes->trouble);
my ($text, $why) = Nodes::whole_text($answer);
is($text, $right, 'with the same text') or diag($why);
is($nodes->end($_), 0, "node $_ ends in good order") for $nodes->running;
done_testing;
