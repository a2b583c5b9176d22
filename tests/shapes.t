#!/usr/bin/perl
# shapes.t - synthetic models of every family run: made, inspected, a few tokens; the same in slices.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

my $dir = scratch();
for my $case (
    ['qwen3-0.6b,layers=2,vocab=4096',              'q6_k',  qr/qwen3\b/,   '5:1:2'],
    ['qwen3-30b-a3b,layers=2,vocab=4096,experts=12', 'q4_k',  qr/qwen3moe/,  3],
    ['gpt-oss-20b,layers=2,vocab=4096,experts=8',   'mxfp4', qr/gpt-oss/,   3],
) {
    my ($shape, $type, $arch, $cut) = @$case;
    my $model = synth("$dir/model.gguf", $shape, $type);
    my $seen = dair(['inspect', $model]);
    is($seen->{status}, 0, "$shape: inspected");
    like($seen->{out}, $arch, "$shape: as $arch");
    my @words = ('run', $model, '--raw', '-p', 'Once upon a time', '-n', 6, '--ctx', 64, '--temp', 0, '--json');
    my $alone = dair(\@words, seconds => 120);
    is($alone->{status}, 0, "$shape: runs") or diag($alone->{err});
    is(scalar(split ' ', ids($alone)), 6, "$shape: six tokens");
    my $sliced = dair([@words, '--slices', $cut], seconds => 120);
    is(ids($sliced), ids($alone), "$shape, $type: --slices $cut gives the same text") or diag($sliced->{err});
    unlink $model;
}

# A file that does not say how its text is cut into words.
my $model = synth("$dir/said.gguf", 'tiny', 'q4_0');
(my $bytes = read_file($model)) =~ s/tokenizer\.ggml\.pre/tokenizer.ggml.xyz/ or die 'no pre-tokenizer in the file';
write_file("$dir/unsaid.gguf", $bytes);
my $note = qr/^note      the file does not say how its text is cut into words/m;
my @short = ('--raw', '-p', 'x y', '-n', 2, '--temp', 0);
for my $case (['tokenize', '-p', 'x y'], ['run', @short], ['run', @short, '--quiet']) {
    my ($verb, @words) = @$case;
    my ($said, $unsaid) = map { dair([$verb, "$dir/$_.gguf", @words], seconds => 60) } qw(said unsaid);
    my @notes = $unsaid->{err} =~ /$note/g;
    my $want = "@words" =~ /--quiet/ ? 0 : 1;
    is($unsaid->{status}, 0, "$verb @words: runs") or diag($unsaid->{err});
    is(scalar @notes, $want, "$verb @words: says so " . ($want ? 'once' : 'not')) or diag($unsaid->{err});
    unlike($said->{err}, $note, "$verb @words: nothing to say of a file that does");
}
done_testing();
