#!/usr/bin/perl
# draft.t - a draft model that is never right, beside a model that streams: it is given up, its memory holds
# weights from then on, as many as without it, and the text is the same. test_ahead.c has one that is right.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

use constant MIB => 1 << 20;

my $dir   = scratch();
my $model = synth("$dir/model.gguf", 'llama-3.2-1b,layers=8,vocab=1024', 'q4_0');
my $draft = synth("$dir/draft.gguf", 'llama-3.2-1b,layers=2,vocab=1024', 'q4_0', 7);
my $tile  = (-s $model) / 64;

sub answer {
    my @words = @_;
    return dair(['run', $model, '--raw', '-p', 'Once upon a time', '-n', 40, '--ctx', 256, @words], seconds => 180);
}

# All that the budget is spent on; what is left of it is less than a tile.
sub spent { my ($f) = @_; return $f->{kept_bytes} + $f->{scratch_bytes} + $f->{ring_bytes} + $f->{program_bytes} }

for my $mib (160, 260) {
    for my $temp (0, 1) {
        my $name = "$mib MiB, temperature $temp";
        my @words = ('--memory', "${mib}M", '--temp', $temp, '--seed', 5, '--json');
        my $off = answer(@words, '--spec', 'off');
        my $run;
        for (1 .. 8) {    # a machine that is busy when it is measured computes too slowly for a draft's memory to matter
            $run = answer(@words, '--draft', $draft);
            last if (figures($run)->{draft_keep} // 1) > 0;
        }
        is($run->{status}, 0, "$name: exit status 0") or diag($run->{err}), next;
        is(ids($run), ids($off), "$name: the same tokens");
        my ($f, $o) = (figures($run), figures($off));
        ok($f->{draft_given_up}, "$name: it is given up");
        cmp_ok($f->{grown_bytes}, '>', (-s $draft), "$name: its memory is given to weights");
        # Some of it holds the rows of guesses from the text, tables, and each choice may leave a tile's bytes.
        cmp_ok(spent($f), '>=', spent($o) - 2 * $tile - 2 * MIB, "$name: as much of the budget is made use of");
        cmp_ok($f->{kept_bytes}, '>=', 0.97 * $o->{kept_bytes} - 2 * $tile, "$name: about as much stays");
        cmp_ok($f->{peak_rss_bytes}, '<=', $mib * MIB, "$name: within the budget") unless is_sanitized();
        # Nothing is read for it: sweeps with the draft until it has cost three steps, and the last of them, in
        # which more is taken; then shorter ones.
        my ($long, $short) = ($f->{sweep_streamed_bytes}, $f->{sweep_bytes} - $f->{kept_bytes});
        cmp_ok($f->{draft_keep}, '>', 0.03, "$name: its keep is known");
        my $late = 3 / $f->{draft_keep} + 2;
        my $most = 1.02 * ($late * $long + ($f->{steps} - $late) * $short) + $f->{ring_bytes};
        cmp_ok($f->{streamed_bytes}, '<=', $most, sprintf "$name: within %.0f steps", $late);
    }
}

# What people are told.
my $run = answer('--memory', '160M', '--draft', $draft);
like($run->{err}, qr/^draft +did not pay and was given up; its [\d.]+ MiB of memory hold weights now$/m, 'the summary says so');
unlike(answer('--memory', '160M')->{err}, qr/^draft /m, 'and nothing where there was none');

# Slices have no use for its memory, and a model in memory neither; what is taken stays the same text.
my $want = ids(answer('--temp', 0, '--json'));
for my $case (['--slices', 2, '--memory', '220M'], ['--memory', '800M']) {
    my $part = answer('--temp', 0, '--json', '--draft', $draft, @$case);
    is($part->{status}, 0, "@$case: exit status 0") or diag($part->{err});
    is(ids($part), $want, "@$case: the same tokens");
    is(figures($part)->{grown_bytes}, 0, "@$case: no weights to take");
    is(figures($part)->{drafted_ahead}, 0, "@$case: and nobody waits with time to draft in");
}

# A line says what became of it in any case; the figures agree with one another.
my @small = ('run', $draft, '--raw', '-p', 'Once upon a time', '-n', 100, '--ctx', 256, '--temp', 0, '--spec', 'draft', '--draft');
for my $case ([$draft, 'itself'], [$model, 'a larger one'], [$model, 'one token', '-n', 1]) {
    my ($with, $name, @more) = @$case;
    my $text = dair([@small, $with, @more], seconds => 60);
    my @said = $text->{err} =~ /^draft +(.+)$/mg;
    is(scalar @said, 1, "$name as a draft: one line of it") or diag($text->{err});
    like($said[0] // '', qr/^(made no guesses(, which did not promise to pay: one takes \S+ ms, a step \S+ ms|: the answer was over before)|\d+ of its [1-9]\d* guesses were right|did not pay and was given up)$/, "$name: what became of it");
    like($said[0] // '', qr/the answer was over before/, 'no step, no guess') if "@more" eq '-n 1';
    my $f = figures(dair([@small, $with, @more, '--json'], seconds => 60));
    is($f->{drafted}, $f->{guessed}, "$name: all guesses are its");
    cmp_ok($f->{drafted_right}, '<=', $f->{drafted}, "$name: of which some may be right");
    cmp_ok($f->{draft_s}, '>', 0, "$name: a guess takes time");
}
done_testing();
