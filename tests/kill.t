#!/usr/bin/perl
# kill.t - nodes die in the middle of answers: 20 rounds here, ROUNDS=300 in `make soak`.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Test::More;
require "$Bin/chaos.pl";

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my $rounds  = $ENV{ROUNDS} || 20;
my $stories = testdata('C-models/stories260K-F32.gguf');
my $seed    = $ENV{SEED} // 1;
my $n       = 4;

subtest 'a small model' => sub {
    plan skip_all => 'no test data' unless -e $stories;
    my $nodes = Nodes->new(lab => Lab->new(nodes => $n), model => $stories, memory => '32M', args => ['--ctx', 512]);
    $nodes->start(1 .. $n)->serving($n, 1 .. $n);
    my $prompt = 'Once upon a time there was a little girl who lived in a house by the sea. ' x 4;
    Chaos::rounds($nodes, int($rounds * 0.7), name => 'stories260K', n => $n, seed => $seed,
        ask => {prompt => $prompt, max_tokens => 250});
    $nodes->end($_) for 1 .. $n;
};

subtest 'a wide model of random weights, whose choices are narrow' => sub {
    my $model = synth(scratch() . '/1b.gguf', 'llama-3.2-1b,layers=4', 'q4_0');
    my $nodes = Nodes->new(lab => Lab->new(nodes => $n), model => $model, memory => '400M', args => ['--ctx', 256],
        alone_args => ['--ctx', 256]);
    $nodes->start(1 .. $n)->serving($n, 1 .. $n);
    Chaos::rounds($nodes, $rounds - int($rounds * 0.7), name => '1B, 4 layers', n => $n, seed => $seed + 1,
        ask => {prompt => 'one two three four five six seven eight ' x 6, max_tokens => 40});
    $nodes->end($_) for 1 .. $n;
};

done_testing;
