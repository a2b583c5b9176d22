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

# Two programs differ by a page or two, by which one may keep a tile more (a 64th of the model, but 64 KiB at
# least) or choose another batch and ring. So what a table says of a budget must be what plan says of that
# budget, or of one a few pages from it.
use constant TILE_MIN => 64 << 10;
my %plan;
sub plan_of { my ($words, $bytes) = @_; return $plan{"@$words $bytes"} //= {%{of_json(@$words, '--memory', $bytes)}, text => of_text(@$words, '--memory', $bytes)} }
sub tile_of { my ($plan) = @_; my $part = $plan->{sweep_bytes} / 64; return $part > TILE_MIN ? $part : TILE_MIN }
sub streamed { my ($plan) = @_; return ($plan->{sweep_streamed_bytes}, tile_of($plan)) }
sub percent { my ($plan) = @_; my ($kept) = $plan->{text} =~ /^weights +(all|\d+)/m; return ($kept eq 'all' ? 100 : $kept, 1 + 100 * tile_of($plan) / $plan->{sweep_bytes}) }

sub is_said {
    my ($got, $figure, $words, $mib, $name) = @_;
    my @said;
    for my $pages (0, -2, 2, -4, 4) {
        my ($want, $most) = $figure->(plan_of($words, $mib * MIB + $pages * 4096));
        push @said, $want;
        return pass("$name: $got for $want") if abs($got - $want) <= $most;
    }
    fail("$name: $got for one of @said");
}

for my $case (['the demo model', [], '8M', '64M'], ['a larger one', [$model], '45M', '300M']) {
    my ($name, $words, @from) = @$case;
    for my $from (@from) {
        my $plan = of_json(@$words, '--memory', $from);
        my @line = @{$plan->{budgets} // []};
        cmp_ok(scalar @line, '>=', 3, "$name, from $from: some budgets");
        my $before = 9**9**9;
        for my $line (@line) {
            my $mib = $line->{budget_bytes} / MIB;
            is_said($line->{streamed_bytes}, \&streamed, $words, $mib, "$name, from $from, ${mib}M: bytes a token");
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
            is_said($table{$mib}, \&percent, $words, $mib, "$name, from $from, ${mib}M: percent that stay");
            cmp_ok($table{$mib}, '>=', $before, '  and no less than with less memory');
            $before = $table{$mib};
        }
    }
}
done_testing;
