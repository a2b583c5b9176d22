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

sub kills {
    my ($nodes, $count, %o) = @_;
    Chaos::begin($nodes, $n);
    Chaos::rounds($nodes, $count, %o, n => $n);
    is($nodes->end($_), 0, "$o{name}: node $_ ends in good order") for reverse 1 .. $n;
}

subtest 'a small model' => sub {
    plan skip_all => 'no test data' unless -e $stories;
    my $nodes = Nodes->new(lab => Lab->new(nodes => $n), model => $stories, memory => '32M', args => ['--ctx', 512]);
    my $once  = 'Once upon a time there was a little girl who lived in a house by the sea. ';
    kills($nodes, int($rounds * 0.7), name => 'stories260K', seed => $seed,
        ask  => {prompt => $once x 4,  max_tokens => 250},
        long => {prompt => $once x 14, max_tokens => 80});    # 393 tokens
};

subtest 'a wide model of random weights, whose choices are narrow' => sub {
    my $model = synth(scratch() . '/1b.gguf', 'llama-3.2-1b,layers=4', 'q4_0');
    my $nodes = Nodes->new(lab => Lab->new(nodes => $n), model => $model, memory => '400M', args => ['--ctx', 256],
        alone_args => ['--ctx', 256]);
    my $one = 'one two three four five six seven eight ';
    kills($nodes, $rounds - int($rounds * 0.7), name => '1B, 4 layers', seed => $seed + 1,
        ask  => {prompt => $one x 6,  max_tokens => 40},
        long => {prompt => $one x 10, max_tokens => 30});
};

done_testing;
