#!/usr/bin/perl
# arm.t - the program for ARM, emulated as the cores of the boards, gives the very tokens that the one
# for this machine gives, greedy and sampled, in RAM, streamed and sliced.
use strict;
use warnings;
use Cwd qw(abs_path);
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

plan skip_all => 'a sanitizer has no program for ARM' if is_sanitized();
my $arm = abs_path("$build/../aarch64/dair");
plan skip_all => 'build/aarch64/dair is not there' unless $arm && -x $arm;
my $qemu = $ENV{QEMU} // '';
plan skip_all => 'there is no qemu-aarch64: QEMU is not set' unless -x $qemu;

# Core, and the kernels that it is to choose: one without any would test nothing.
my $best  = -e "$FindBin::Bin/../kernels/dotprod.c" ? 'dotprod' : 'neon';
my @cores = (['cortex-a53', 'neon'], ['cortex-a72', 'neon'], ['cortex-a76', $best]);
my $n = 6;

my @model;    # name, words
push @model, ['demo'] if dair(['inspect'])->{status} eq '0';
for my $type (qw(Q4_0 Q8_0 F16)) {
    my $file = testdata("C-models/stories260K-$type.gguf");
    push @model, ["stories260K $type", $file] if -r $file;
}

my $digest = sub { my ($o) = objects($_[0]{out}); return $o // {} };
my $native = $digest->(dair(['selftest', '--json']));
ok($native->{digest}, 'selftest here: a digest');

my @way = (
    ['greedy',  '-n', $n, '--temp', 0],
    ['sampled', '-n', $n, '--temp', 0.8, '--seed', 5],
);
my (%want, @case);
for my $model (@model) {
    my ($name, @file) = @$model;
    for my $way (@way) {
        my ($how, @words) = @$way;
        my @run = ('run', @file, '--raw', '-p', 'Once upon a time', '--json', '--ctx', 64, '--memory', '24M', @words);
        my $here = dair(\@run);
        is($here->{status}, 0, "$name, $how, here: exit status 0") or diag($here->{err}), next;
        push @case, ["$name, $how", ids($here), @run];
    }
}

for my $core (@cores) {
    my ($cpu, $kernels) = @$core;
    my @on = (bin => $arm, prefix => [$qemu, '-cpu', $cpu], seconds => 120);
    my $self = $digest->(dair(['selftest', '--json'], @on));
    is($self->{kernels}, $kernels, "$cpu: its kernels");
    is($self->{digest}, $native->{digest}, "$cpu: selftest's digest is the one from here");
    SKIP: {
        skip 'no demo model in this build, and no DAIR_TESTDATA', 1 unless @case;
        for my $case (@case) {
            my ($name, $want, @run) = @$case;
            my $there = dair(\@run, @on);
            is($there->{status}, 0, "$cpu, $name: exit status 0") or diag($there->{err});
            is(ids($there), $want, "$cpu, $name: the same tokens");
        }
        my ($name, $want, @run) = @{$case[0]};
        is(ids(dair([@run, '--slices', '2:1'], @on)), $want, "$cpu, $name, two slices: the same tokens");
    }
}
done_testing();
