#!/usr/bin/perl
# slow.t - a disk that is slow is not one that hangs: a layer that takes longer to read than a node that
# does not move is given (20 s) is waited for. stuck.t has the opposite.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
plan skip_all => 'strace is not here' unless have('strace');
plan skip_all => 'strace may not trace here' if system('strace -f -o /dev/null true 2>/dev/null');

# Every read of a while takes four seconds, in each thread that reads: of the rows of the vocabulary, which
# are most of this model.
my $model  = synth(scratch() . '/1b.gguf', 'llama-3.2-1b,layers=1', 'q4_0');
my $trace  = scratch() . '/trace';
my @strace = ('strace', '-f', '-qq', '-P', $model, '-e', 'signal=none', '-e', 'trace=pread64', '-o', $trace,
    '-e', 'inject=pread64:delay_enter=4000000:when=9..15');
my $nodes = Nodes->new(lab => Lab->new(nodes => 1), model => $model, memory => '64M', patience => 120,
    args => ['--ctx', 256], alone_args => ['--ctx', 256]);
$nodes->{of}{1} = {prefix => \@strace};
my %ask = (prompt => 'one', max_tokens => 1);
$nodes->start(1)->serving(1, 1);
my $begin = now();
my $text  = eval { $nodes->text(1, %ask) };
my $took  = now() - $begin;
is($text, $nodes->alone(%ask), 'the right text') or diag($@);
cmp_ok($took, '>', 25, sprintf 'after %.1f s', $took);
unlike($nodes->log_of(1), qr/has not moved/, 'the node did not give up');
is($nodes->status(1)->{node}{state}, 'READY', 'and is ready');
is($nodes->end(1), 0, 'it ends in good order');
done_testing;
