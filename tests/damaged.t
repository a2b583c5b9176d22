#!/usr/bin/perl
# damaged.t - model files whose numbers are none: a sentence that names the tensor and exit status 3, whether
# it is found as the model loads, as a layer passes from the disk while many threads wait for later ones, or in
# what the model says at last.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

my $dir = scratch();
my $whole = read_file(synth("$dir/whole.gguf", 'llama-3.2-1b,layers=1,vocab=2000', 'q4_0'));
my $text = "$dir/text";
write_file($text, 'Once upon a time there was a node.');

# The model with these bytes at place `at` of tensor `name`.
sub damaged {
    my ($name, $at, $bytes) = @_;
    my ($sizes) = dair(['inspect', "$dir/whole.gguf", '--json'])->{out} =~ /"types":\[(.*?)\]/;
    my $data = length $whole;    # where it begins: tensors end with the file, and none needs padding
    $data -= $_ for $sizes =~ /"bytes":(\d+)/g;
    my $info = index($whole, pack('Q<', length $name) . $name) + 8 + length $name;
    my $off = unpack 'Q<', substr $whole, $info + 4 + 8 * unpack('V', substr $whole, $info, 4) + 4, 8;
    my $file = $whole;
    substr($file, $data + $off + $at, length $bytes) = $bytes;
    write_file("$dir/bad.gguf", $file);
    return "$dir/bad.gguf";
}

my @ask = ('--raw', '-p', 'a', '-n', 2, '--ctx', 64, '--quiet');
my $least = figures(dair(['run', "$dir/whole.gguf", @ask, '--json', '--threads', 16]))->{least_bytes} + (1 << 21);
my $bad = damaged('blk.0.ffn_up.weight', 512 * 2048 / 32 * 18, "\x7c" x 2000);    # f16 that are NaN, among them scales
my $said = qr{\Adair run: (?:[a-z ]+: )?\S*bad\.gguf: tensor blk\.0\.ffn_up\.weight holds a number that is not finite near row \d+\n\z};
for my $way (['in memory'], map { ["streaming, $_ threads", '--memory', $least, '--threads', $_] } 1, 2, 16) {
    my ($name, @words) = @$way;
    my $run = dair(['run', $bad, @ask, @words], seconds => 30);
    is($run->{status}, 3, "a scale, $name: exit status 3");
    like($run->{err}, $said, 'and is named');
}

# Where experts are read as well, in a layer's own tile and in an expert's.
my $dense = $whole;
$whole = read_file(synth("$dir/whole.gguf", 'moe-small', 'q4_0'));
$least = figures(dair(['run', "$dir/whole.gguf", @ask, '--json', '--threads', 16]))->{least_bytes} + (1 << 21);
for my $name ('blk.1.attn_output.weight', 'blk.1.ffn_down_exps.weight') {
    $bad = damaged($name, 0, "\x7c" x 60000);
    my $run = dair(['run', $bad, @ask, '--memory', $least, '--threads', 16], seconds => 30);
    is($run->{status}, 3, "$name, streaming: exit status 3");
    like($run->{err}, qr/tensor \Q$name\E holds a number that is not finite/, 'and is named');
}
write_file("$dir/whole.gguf", $whole = $dense);

$bad = damaged('blk.0.ffn_norm.weight', 400, pack 'V', 0x7fc00000);
my $run = dair(['run', $bad, @ask], seconds => 30);
is($run->{status}, 3, 'one of a norm: exit status 3');
like($run->{err}, qr/tensor blk\.0\.ffn_norm\.weight holds a number that is not finite, 100$/m, 'and is named');

# Numbers so great that what they come to is none, where nothing is quantised on the way.
$whole = read_file(synth("$dir/whole.gguf", 'llama-3.2-1b,layers=1,vocab=2000', 'f16'));
$bad = damaged('output_norm.weight', 0, pack('V', 0x7f7fffff) x 2048);
for my $words (['run', $bad, @ask], ['perplexity', $bad, '-f', $text, '--quiet', '--json']) {
    $run = dair($words, seconds => 30);
    is($run->{status}, 3, "$words->[0]: exit status 3");
    is($run->{out}, '', 'nothing is said');
    like($run->{err}, qr/the model's output is not a number/, 'but why');
}
done_testing();
