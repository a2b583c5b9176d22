#!/usr/bin/perl
# equal.t - one text, whatever computes it: 1 to 8 nodes, more than there are KV heads, of both
# machines; each within its memory; and several nodes for a model that none of them could hold.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my $folder = scratch();
my $arm    = $build =~ s/[^\/]+\z/aarch64\/dair/r;
my $qemu   = $ENV{QEMU} // '';

sub mib { return sprintf '%.1f MiB', $_[0] / 1048576 }

# Every node below its budget, at its most.
sub within {
    my ($nodes, $budget, $name) = @_;
    my @peak = map { $nodes->size($_)->{peak} } $nodes->running;
    my ($most) = sort { $b <=> $a } @peak;
    cmp_ok($most, '<=', $budget, sprintf '%s: each node within its budget of %s, the most %s', $name, mib($budget), mib($most));
}

my %model = ('the demo model (4 KV heads)' => {memory => 32});
my $stories = testdata('C-models/stories260K-F32.gguf');
$model{stories260K} = {file => $stories, memory => 32} if -e $stories;

my @asks = ({prompt => 'Once upon a time', max_tokens => 48, temperature => 0},
    {prompt => 'Once upon a time', max_tokens => 48, temperature => 0.8, seed => 11});

for my $name (sort keys %model) {
    my $m     = $model{$name};
    my @right = map { Nodes->new(lab => undef, model => $m->{file}, key => 'none', alone_args => ['--ctx', 256])->alone(%$_) } @asks;
    for my $n (1, 2, 3, 5, 7, 8) {
        my $nodes = Nodes->new(lab => Lab->new(nodes => $n), model => $m->{file}, memory => "$m->{memory}M", args => ['--ctx', 256]);
        $nodes->start(1 .. $n);
        ok(eval { $nodes->serving($n, 1 .. $n) }, "$name: $n nodes serve") or diag($@), next;
        is($nodes->text(1,  %{$asks[0]}), $right[0], "$name: $n nodes, greedy");
        is($nodes->text($n, %{$asks[1]}), $right[1], "$name: $n nodes, temperature 0.8");
        within($nodes, $m->{memory} << 20, "$name, $n nodes");
        $nodes->end($_) for reverse 1 .. $n;
    }
}

# As many as there may be, each with next to nothing to do.
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 16), memory => '32M', args => ['--ctx', 256], alone_args => ['--ctx', 256], patience => 60);
    my %ask   = (prompt => 'Once upon a time', max_tokens => 16);
    $nodes->start(1 .. 16);
    my $begin = now();
    ok(eval { $nodes->serving(16, 1 .. 16) }, sprintf '16 nodes serve %.1f s after the last start', now() - $begin) or diag($@);
    my $right = $nodes->alone(%ask);
    $begin = now();
    is(eval { $nodes->text($_, %ask) }, $right, "16 nodes: the text from node $_") or diag($@) for 1, 16;
    cmp_ok(now() - $begin, '<=', 60, sprintf 'both within %.1f s', now() - $begin);
    within($nodes, 32 << 20, '16 nodes');
    $nodes->end($_) for reverse 1 .. 16;
}

# Rows of each expert on every node.
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), model => synth("$folder/moe.gguf", 'moe-tiny', 'q8_0'), memory => '64M',
        args => ['--ctx', 256], alone_args => ['--ctx', 256]);
    $nodes->start(1 .. 3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'three nodes serve a model of experts') or diag($@);
    for my $ask ({prompt => 'one two three', max_tokens => 32}, {prompt => 'one two three', max_tokens => 32, temperature => 0.8, seed => 5}) {
        my $one = $nodes->alone(%$ask);
        cmp_ok(length $one, '>', 20, 'one process says something');
        is(eval { $nodes->text($_, %$ask) }, $one, "experts, three nodes: the same text from node $_") or diag($@) for 1, 3;
    }
    within($nodes, 64 << 20, 'experts');
    $nodes->end($_) for 1 .. 3;
}

# Two of each machine; the ARM ones in the emulator, as three kinds of cores.
SKIP: {
    skip 'no ARM program or no emulator', 4 unless -x $arm && -x $qemu && $build =~ /x86_64$/;
    my $file  = -e $stories ? $stories : undef;
    my $nodes = Nodes->new(lab => Lab->new(nodes => 4), model => $file, args => ['--ctx', 256], patience => 90, alone_args => ['--ctx', 256]);
    my @cpu   = qw(cortex-a53 cortex-a76);
    # The emulator knows no IP_MULTICAST_IF: its nodes are told where the others are.
    my @at = map { $nodes->{lab}->address($_) . ':9998' } 1 .. 4;
    for my $i (3, 4) {
        $nodes->{of}{$i} = {prefix => [$qemu, '-cpu', $cpu[$i - 3]], bin => $arm, memory => '256M',
            args => ['--ctx', 256, '--peers', join ',', map { $at[$_ - 1] } grep { $_ != $i } 1 .. 4]};
    }
    $nodes->start(1 .. 4);
    ok(eval { $nodes->serving(4, 1 .. 4) }, 'two x86_64 and two aarch64 nodes serve together') or diag($@), last SKIP;
    my %arch = map { $_->{arch} => 1 } @{$nodes->status(1)->{cluster}{nodes}};
    is(join(' ', sort keys %arch), 'aarch64 x86_64', 'of both machines');
    is($nodes->text(1, %{$asks[$_]}), $nodes->alone(%{$asks[$_]}), 'and give the same text, ' . ('greedy', 'sampled')[$_]) for 0, 1;
}

# A model of more than 1 GB on four nodes that together may use 60 % of it: each one streams.
{
    my $file   = synth("$folder/big.gguf", 'llama-3.1-8b,layers=2', 'q8_0');
    my $bytes  = -s $file;
    my $budget = int $bytes * 0.6 / 4 / 1048576;
    cmp_ok($bytes, '>=', 1e9, sprintf 'a model of %.2f GB', $bytes / 1e9);
    my $nodes = Nodes->new(lab => Lab->new(nodes => 4), model => $file, memory => "${budget}M", args => ['--ctx', 128],
        alone_args => ['--ctx', 128], patience => 120);
    $nodes->start(1 .. 4);
    ok(eval { $nodes->serving(4, 1 .. 4) }, "four nodes of $budget MiB serve it") or diag($@);
    my %ask = (prompt => 'one two three', max_tokens => 6);
    is($nodes->text(2, %ask), $nodes->alone(%ask), 'with the text of one process');
    my @n = @{$nodes->status(1)->{cluster}{nodes}};
    is(scalar(grep { $_->{streamed_bytes} > 0 } @n), 4, 'each node streams: ' . join ' ', map { mib($_->{streamed_bytes}) } @n);
    within($nodes, $budget << 20, 'the large model');
}
done_testing;
