#!/usr/bin/perl
# slices.t - however the work is cut, the answer is the same tokens: 1 to 7 slices, even and uneven,
# more of them than KV heads, greedy and sampled, all types, all in RAM and streamed.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

my @cuts = (1, 2, 3, 4, 7, '5:1:2');
my @ways = (['greedy', '--temp', 0], ['sampled', '--temp', 0.8, '--seed', 5]);
my $dir = scratch();

# ids_of NAME, WORDS: the ids of a run that must succeed; undef and a failure where it does not.
sub ids_of {
    my ($name, @words) = @_;
    my $run = dair(['run', @words, '--raw', '-p', 'Once upon a time', '--json'], seconds => 60);
    return ($run, ids($run)) if $run->{status} eq '0' && length ids($run);
    fail($name);
    diag("status $run->{status}: $run->{err}");
    return;
}

# All cuts of a model, both ways of choosing, give what one slice gives. Little memory is allowed only
# so that measuring the memory's speed at the start takes little time.
sub all_alike {
    my ($name, $model, @words) = @_;
    my %seen;
    for my $way (@ways) {
        my ($how, @temp) = @$way;
        my $want;
        for my $cut (@cuts) {
            my ($run, $ids) = ids_of("$name, $how, slices $cut", $model, @words, @temp, '--slices', $cut) or next;
            $want //= $ids;
            is($ids, $want, "$name, $how, slices $cut: the same tokens");
            my $parts = $cut =~ tr/:// ? 1 + $cut =~ tr/:// : $cut;
            is(figures($run)->{slices}, $parts, "$name, $how, slices $cut: cut into $parts");
        }
        $seen{$want // ''}++;
    }
    cmp_ok(scalar keys %seen, '==', 2, "$name: sampling is not greedy, so the test can tell");
}

for my $type (qw(Q8_0 Q4_0 F32 F16)) {
    my $model = testdata("C-models/stories260K-$type.gguf");
    SKIP: {
        skip "stories260K-$type is not in DAIR_TESTDATA", 1 unless -r $model;
        all_alike("stories260K $type", $model, '-n', 32, '--memory', '48M');
    }
}

# Models made here: with testdata absent, this is the test.
my $big = synth("$dir/4.gguf", 'llama-3.2-1b,layers=4', 'q4_0');
my @small = ('-n', 12, '--ctx', 128);
all_alike('1B Q4_0', $big, @small);

my $i = 0;
for my $way (@ways) {
    my ($how, @temp) = @$way;
    my ($base, $want) = ids_of("1B Q4_0, $how, in RAM", $big, @small, @temp) or next;
    is(figures($base)->{sweep_streamed_bytes}, 0, "1B Q4_0, $how: without a limit it is all in RAM");
    for my $tight (['--memory', '120M', '--slices', 1], ['--memory', '130M', '--slices', '5:1:2'],
        ['--memory', '60M', '--threads', 3], ['--memory', '160M', '--slices', 7]) {
        my ($run, $ids) = ids_of("1B Q4_0, $how, @$tight", $big, @small, @temp, @$tight) or next;
        is($ids, $want, "1B Q4_0, $how, streaming with @$tight: the same tokens");
        cmp_ok(figures($run)->{streamed_bytes} // 0, '>', 0, "1B Q4_0, $how, @$tight: it did stream");
    }
}
unlink $big;

for my $type (qw(q8_0 f16)) {
    my $model = synth("$dir/$type.gguf", 'llama-3.2-1b,layers=1', $type);
    my ($run, $want) = ids_of("1B $type, in RAM", $model, '-n', 6, '--ctx', 64, '--temp', 0);
    for my $how (['--slices', '3'], ['--slices', '5:1:2', '--memory', '130M'], ['--memory', '120M']) {
        my ($other, $ids) = ids_of("1B $type, @$how", $model, '-n', 6, '--ctx', 64, '--temp', 0, @$how) or next;
        is($ids, $want, "1B $type, @$how: the same tokens");
    }
    unlink $model;
}
done_testing();
