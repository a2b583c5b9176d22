#!/usr/bin/perl
# plan.t - the table of other budgets: each line says what `plan` says with that very --memory, whatever the
# budget is that it was asked from, and none keeps fewer weights than the one before.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Dair;
use Test::More;

use constant MIB => 1 << 20;
my $model = synth(scratch() . '/model.gguf', 'llama-3.2-1b,layers=2,vocab=4096', 'q4_0');
my @few   = qw(--threads 1 --pin off);

sub of_json { my $r = dair(['plan', @_, @few, '--json']); is($r->{status}, 0, "$_[-1]") or diag($r->{err}); return (objects($r->{out}))[0] // {} }
sub of_text { my $r = dair(['plan', @_, @few]); is($r->{status}, 0, "$_[-1], for people") or diag($r->{err}); return $r->{out} }

# Two programs differ by a page or two, and then by a tile: a 64th of the model, but 64 KiB at least.
use constant TILE_MIN => 64 << 10;
sub tile_of { my ($plan) = @_; my $part = $plan->{sweep_bytes} / 64; return $part > TILE_MIN ? $part : TILE_MIN }
sub is_near { my ($got, $want, $most, $name) = @_; cmp_ok(abs($got - $want), '<=', $most, "$name: $got for $want") }

for my $case (['the demo model', [], '8M', '64M'], ['a larger one', [$model], '45M', '300M']) {
    my ($name, $words, @from) = @$case;
    my %self;    # what plan says of a budget in MiB
    for my $from (@from) {
        my $plan = of_json(@$words, '--memory', $from);
        my @line = @{$plan->{budgets} // []};
        cmp_ok(scalar @line, '>=', 3, "$name, from $from: some budgets");
        my $before = 9**9**9;
        for my $line (@line) {
            my $mib = $line->{budget_bytes} / MIB;
            my $is = $self{$mib} //= of_json(@$words, '--memory', "${mib}M");
            is_near($line->{streamed_bytes}, $is->{sweep_streamed_bytes}, tile_of($is), "$name, from $from, ${mib}M: bytes a token");
            cmp_ok($line->{streamed_bytes}, '<=', $before, '  and no more than with less memory');
            $before = $line->{streamed_bytes};
        }
        is($line[-1]{streamed_bytes}, 0, "$name, from $from: the last holds all");

        my $text  = of_text(@$words, '--memory', $from);
        my %table = $text =~ /^ +(\d+)M .* (\d+) %,/mg;
        my @mib = sort { $a <=> $b } keys %table;
        my @off = grep { abs(($mib[$_] // 0) - $line[$_]{budget_bytes} / MIB) > 1 } 0 .. $#line;
        is("@off", '', "  the same in the table for people: @mib MiB");
        $before = 0;
        for my $mib (@mib) {
            my $is = $self{$mib} //= of_json(@$words, '--memory', "${mib}M");
            my ($kept) = ($is->{text} //= of_text(@$words, '--memory', "${mib}M")) =~ /^weights +(all|\d+)/m;
            is_near($table{$mib}, $kept eq 'all' ? 100 : $kept, 1 + 100 * tile_of($is) / $is->{sweep_bytes}, "$name, from $from, ${mib}M: percent that stay");
            cmp_ok($table{$mib}, '>=', $before, '  and no less than with less memory');
            $before = $table{$mib};
        }
    }
}
done_testing;
