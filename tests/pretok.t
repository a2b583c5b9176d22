#!/usr/bin/perl
# pretok.t - the hand-written cuts against the patterns that the models' tokenizer files publish, run by
# Perl's own engine on random texts: of each name of tokenizer.ggml.pre a pattern stands for, the words
# must be the same. Several patterns are applied one after another, each inside the pieces before.
use strict;
use warnings;
use utf8;
use re '/u';    # a string of Latin-1 follows Unicode's rules too
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;
use IPC::Open2;

my $lab = "$build/tests/lab_pretok";
plan skip_all => "$lab is not built" unless -x $lab;

my $short = qr/(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])/;
my $tail  = qr/\s*[\r\n]+|\s+(?!\S)|\s+/;
my $up    = qr/[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]/;
my $low   = qr/[\p{Ll}\p{Lm}\p{Lo}\p{M}]/;
my $gpt2  = qr/'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/;
my $cased = sub { my $e = shift; qr/[^\r\n\p{L}\p{N}]?$up*$low+$e|[^\r\n\p{L}\p{N}]?$up+$low*$e/ };
my $han   = qr/[一-龥ࠀ-一가-\x{d7ff}]+/;
my %cut = (
    'gpt-2'     => [$gpt2],
    'llama-bpe' => [qr/$short|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|$tail/],
    'qwen2'     => [qr/$short|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|$tail/],
    'qwen35'    => [qr/$short|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|$tail/],
    'minicpm5'  => [qr/\p{N}{1,3}/, qr/$short|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|$tail/],
    'seed-coder' => [qr/$short|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|$tail/],
    'bailingmoe' => [qr/'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+/],
    'tekken'    => [qr/${\$cased->('')}|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n\/]*|$tail/],
    'gpt-4o'    => [qr/${\$cased->("$short?")}|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n\/]*|$tail/],
    'smollm'    => [qr/\p{N}/, $gpt2],
    'default'   => [qr/[\p{P}\$\+<=>\^~\|]+/, $gpt2, qr/\p{N}+/, qr/[0-9][0-9][0-9]/],
    'gemma4'    => [qr/[^\n]+|[\n]+/],
    'bloom'     => [qr/ ?[^(\s|.,!?…。，、।۔،)]+/],
    'viking'    => [qr/ ?[^(\s|.,!?…。，、।۔،)]+/, qr/\p{N}/],
    'falcon'    => [qr/[\p{P}\$\+<=>\^~\|`]+/, $gpt2, qr/[0-9][0-9][0-9]/],
    'deepseek-llm' => [qr/[\r\n]/, qr/\s?[\p{Lu}\p{Ll}\p{Lt}]+/, qr/\s?[!-\/:-~！-／：-～‘-‟　-。]+/, qr/\s+\z/, $han, qr/\p{N}+/],
    'deepseek-coder' => [qr/[\r\n]/, qr/\s?\p{L}+/, qr/\s?\p{P}+/, $han, qr/\p{N}/],
    'deepseek-v3' => [qr/\p{N}{1,3}/, qr/[一-龥\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+/,
        qr/[!"#\$%&'()*+,\-.\/:;<=>?\@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|$tail/],
);
my %same = ('deepseek-r1-qwen' => 'qwen2', llama4 => 'gpt-4o', starcoder => 'smollm', glm4 => 'llama-bpe', 'hunyuan-dense' => 'deepseek-v3',
    'command-r' => 'smollm', stablelm2 => 'qwen2');

# What the patterns make of a text: matches and what is between them are pieces of their own.
sub words {
    my ($text, @pattern) = @_;
    my @piece = ($text);
    for my $p (@pattern) {
        my @next;
        for my $t (@piece) {
            my $at = 0;
            while ($t =~ /$p/g) {
                push @next, substr $t, $at, $-[0] - $at if $-[0] > $at;
                push @next, substr $t, $-[0], $+[0] - $-[0] if $+[0] > $-[0];
                $at = $+[0];
            }
            push @next, substr $t, $at if $at < length $t;
        }
        @piece = @next;
    }
    return @piece;
}

# Characters of every class that a pattern tells apart, all of them old enough for any Unicode table.
my @plain = (split("", "aAzZsStTmMdDrRvVlLeE019 .,!?/+<=>^~|`_-("), q('), q("), q($), q( ), q( ), "\n", "\r", "\t", "\n");
my @rare = (split('', 'éÉßǅλΩжЖʰªא中文日ー世がカ한글ࠀԱეⅧ½²३٣１ＡａʼⅣ’“—…。，、।۔،！～€£©°÷×☃'), "\x{301}", "\x{93f}", "\x{20dd}", "\x{200b}", "\x{ad}",
    "\x{0}", "\x{1}", "\x{7f}", "\x{a0}", "\x{85}", "\x{2003}", "\x{3000}", "\x{2028}", "\x{1680}", "\x{feff}", "\x{e000}", "\x{1f600}",
    "\x{10400}", "\x{10428}", "\x{20000}", "\x{1f1e9}", "\x{200d}", "\x{b}");
srand 20261129;
sub text {
    my ($share, $text) = (rand(1), '');
    for (0 .. rand(24)) {
        my $set = rand(1) < $share ? \@rare : \@plain;
        $text .= $set->[rand(@$set)] x (rand(1) < 0.2 ? 1 + rand(5) : 1);
    }
    return $text;
}
sub hex_of { my $s = shift; utf8::encode($s); return unpack 'H*', $s }

my @text = map { text() } 1 .. 3000;
push @text, "it's I'M we'LL 'tis", "  \n \n  x", 'HTTPServer2024isOK', "日A日a ʰAA", "a\x{301}A\x{301}", "\x{301}A b", ".\x{301}a";
my $pid = open2(my $from, my $to, $lab);
for my $name (sort keys %cut, sort keys %same) {
    my ($bad, $first) = (0, '');
    my $of = $cut{$same{$name} // $name};
    for my $text ($same{$name} ? @text[0 .. 199] : @text) {
        print $to "$name ", hex_of($text), "\n";
        $to->flush;
        chomp(my $got = <$from> // '');
        my $want = join ' ', map { hex_of($_) } words($text, @$of);
        next if $got eq $want;
        $first ||= "text " . hex_of($text) . "\n got $got\nwant $want";
        $bad++;
    }
    ok(!$bad, "$name cuts as its pattern does") or diag("$bad texts differ, the first: $first");
}
close $to;
waitpid $pid, 0;
done_testing();
