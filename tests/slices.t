#!/usr/bin/perl
# slices.t - however the work is cut, the answer is the same tokens: 1 to 7 slices, even and uneven,
# more of them than KV heads, greedy and sampled, all types, all in RAM and streamed.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

my @cuts = (2, 3, 4, 7, '5:1:2');
my $greedy  = ['greedy', '--temp', 0];
my $sampled = ['sampled', '--temp', 0.8, '--seed', 5];
# Some tokens are wanted by name (those that rise), the others may have hidden better ones.
my $biased = ['biased', '--temp', 0.8, '--seed', 5, '--repeat-penalty', 1.3, '--presence-penalty', -0.5,
    map { ('--logit-bias', $_) } '7:4', '300:9', '100000:9', '400:-5'];
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

# alike NAME, MODEL, WORDS, WAY, CUTS: all cuts of a model give what one slice gives; that.
sub alike {
    my ($name, $model, $words, $way, @cut) = @_;
    my ($how, @temp) = @$way;
    my $want;
    for my $cut (1, @cut) {
        my ($run, $ids) = ids_of("$name, $how, slices $cut", $model, @$words, @temp, '--slices', $cut) or next;
        $want //= $ids;
        is($ids, $want, "$name, $how, slices $cut: the same tokens");
        my $parts = $cut =~ tr/:// ? 1 + $cut =~ tr/:// : $cut;
        is(figures($run)->{slices}, $parts, "$name, $how, slices $cut: cut into $parts");
    }
    return $want // '';
}

# Little memory is allowed only so that measuring its speed at the start takes little time.
for my $type (qw(Q8_0 Q4_0 F32 F16)) {
    my $model = testdata("C-models/stories260K-$type.gguf");
    SKIP: {
        skip "stories260K-$type is not in DAIR_TESTDATA", 1 unless -r $model;
        my @how = ("stories260K $type", $model, ['-n', 32, '--memory', '48M']);
        isnt(alike(@how, $sampled, @cuts), alike(@how, $greedy, @cuts), "$how[0]: sampling is not greedy");
    }
}

# Models made here: with testdata absent, this is the test. Streaming cuts as well as staying in RAM.
my $big = synth("$dir/4.gguf", 'llama-3.2-1b,layers=4', 'q4_0');
my @small = ('-n', 8, '--ctx', 64);
my %want = (
    greedy  => alike('1B Q4_0', $big, \@small, $greedy, @cuts),
    sampled => alike('1B Q4_0', $big, \@small, $sampled, @cuts),
);
isnt($want{sampled}, $want{greedy}, '1B Q4_0: sampling is not greedy');
isnt(alike('1B Q4_0', $big, \@small, $biased, 3), $want{sampled}, '1B Q4_0: biases change it');
for my $case ([$greedy, '60M', 1], [$greedy, '100M', '5:1:2'], [$greedy, '160M', 7], [$sampled, '120M', 3]) {
    my ($way, $memory, $cut) = @$case;
    my ($how, @temp) = @$way;
    my $name = "1B Q4_0, $how, slices $cut, $memory";
    my ($run, $ids) = ids_of($name, $big, @small, @temp, '--slices', $cut, '--memory', $memory) or next;
    is($ids, $want{$how}, "$name: the same tokens");
    cmp_ok(figures($run)->{streamed_bytes} // 0, '>', 0, "$name: it streams");
}
unlink $big;

for my $type (qw(q8_0 f16)) {
    my $model = synth("$dir/$type.gguf", 'llama-3.2-1b,layers=1', $type);
    my @few = ('-n', 4, '--ctx', 64);
    my $want = alike("1B $type", $model, \@few, $greedy, 3);
    push @few, '--temp', 0, '--slices', '5:1:2', '--memory', '130M';
    my ($run, $ids) = ids_of("1B $type, 5:1:2, 130M", $model, @few);
    is($ids, $want, "1B $type, slices 5:1:2, streaming: the same tokens");
    unlink $model;
}
done_testing();
