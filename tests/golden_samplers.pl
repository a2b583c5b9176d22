#!/usr/bin/perl
# golden_samplers.pl DIR: the sampling steps against what another program left of the same logits
# (every *.json of DIR/H-samplers).
#
# Compared as sets: which candidates are left, their logits and probabilities. Where logits are equal
# any of them may be kept. A step that the driver does not know counts as unsupported, unless
# tests/supported.txt lists it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Golden;
use JSON::PP;
use IPC::Open2;
use File::Basename;

my $dir = shift or die "usage: golden_samplers.pl DIR\n";
my $driver = ($ENV{DAIR_BUILD} || 'build/x86_64') . '/tests/golden_sampler';
my %listed = listed('sampler');
my ($passed, $failed, $unsupported, $bad) = (0, 0, 0, 0);
# In the order in which the driver takes them.
my @argument = qw(k p t n min_keep delta exponent last_n repeat freq present);

sub number { my $v = shift; return defined $v ? $v + 0 : -9**9**9 }

# The oracle works in float: 7 digits of a logit, somewhat less of a probability.
sub near {
    my ($got, $want, $digits) = @_;
    return 1 if $got == $want;
    return abs($got - $want) <= $digits * abs($want) + 1e-30;
}

# By what share a dynamic temperature may be off that follows from an entropy which the oracle sums in float: n times
# rounds 24 bits of the sum so far and of a probability. The temperature is read from the logits that are left.
sub slack {
    my ($c, $logits, $got) = @_;
    my ($t, $range, $exponent, $n) = (@{$c->{params}}{qw(t delta exponent)}, scalar @$logits);
    return 0 if $c->{sampler} ne 'temp_ext' || $range <= 0 || $n < 2;
    my ($largest) = sort { abs($b->[1]) <=> abs($a->[1]) } grep { abs($_->[1]) < 9**9**9 } @$got;
    return 0 if !$largest || !$largest->[1];
    my $low = $t > $range ? $t - $range : 0;
    my $is = $logits->[$largest->[0]] / $largest->[1];
    my $part = ($is - $low) / ($t + $range - $low);
    return 0 if $part <= 0 || $is <= 0;
    $part **= 1 / $exponent;
    my $off = $n * 2 ** -24 * ($part + 1 / log $n);
    return ($t + $range - $low) * (($part + $off) ** $exponent - $part ** $exponent) / $is;
}

# Top-p ends where a sum passes p, which the oracle adds up in float: n times rounds 24 bits of it. Where two answers are
# of different length for that reason alone, the longer one is cut to the other's. By what share probabilities may be
# off then, or 0.
sub same_end {
    my ($c, $logits, @kept) = @_;
    my ($few, $many) = sort { $a <=> $b } map { scalar @$_ } @kept;
    return 0 if $c->{sampler} ne 'top_p' || !$few || $few == $many;
    my @l = sort { $b <=> $a } @$logits;
    my @e = map { exp($_ - $l[0]) } @l;
    my ($all, $short, $long) = (0, 0, 0);
    $all += $_ for @e;
    $short += $_ / $all for @e[0 .. $few - 1];
    $long += $_ / $all for @e[0 .. $many - 2];
    my ($p, $off) = ($c->{params}{p}, @l * 2 ** -24);
    return 0 if $short < $p - $off || $long > $p + $off;
    for (@kept) { @$_ = (sort { $b->[1] <=> $a->[1] || $a->[0] <=> $b->[0] } @$_)[0 .. $few - 1] }
    return 2 * $off / $short;
}

# Undef when alike, else what differs. With slack, by that share more in the logits, and by what follows, and follows
# from rounding these, in the probabilities.
sub differs {
    my ($got, $want, $logits, $slack, $share) = @_;
    return 'keeps ' . @$got . ', want ' . @$want if @$got != @$want;
    my %times;
    $times{$_ + 0}++ for @$logits;
    my @got = sort { $b->[1] <=> $a->[1] || $a->[0] <=> $b->[0] } @$got;
    my @want = sort { $b->[1] <=> $a->[1] || $a->[0] <=> $b->[0] } @$want;
    my %kept = map { $_->[0] => 1 } @want;
    for my $i (0 .. $#got) {
        my ($g, $w) = ($got[$i], $want[$i]);
        return "logit $g->[1], want $w->[1]" unless near($g->[1], $w->[1], 1e-6 + $slack);
        my $more = $slack && $slack * (1 + 2 * abs($got[0][1] - $g->[1])) + 2 ** -22 * (abs($got[0][1]) + abs $g->[1]);
        return "p $g->[2], want $w->[2]" unless near($g->[2], $w->[2], 2e-5 + $more + $share);
        my $unique = $times{$logits->[$g->[0]] + 0} == 1;
        return "keeps id $g->[0]" if $unique && !$kept{$g->[0]};
    }
    return undef;
}

-x $driver or die "$driver is not built\n";
for my $file (sort glob "$dir/H-samplers/*.json") {
    my $pid = open2(my $from, my $to, $driver);
    for my $group (@{decode_json(slurp($file) // die "$file: $!\n")}) {
        print $to "logits @{$group->{logits}}\n";
        for my $c (@{$group->{cases}}) {
            my @args = map { defined $c->{params}{$_} ? $c->{params}{$_} : () } @argument;
            print $to "prev @{$c->{prev}}\n", "$c->{sampler} @args\n";
            $to->flush;
            my $answer = <$from>;
            defined $answer or die "the driver died at $c->{sampler} @args\n";
            chomp $answer;
            my $known = $answer ne 'unsupported';
            if (!$known && !$listed{$c->{sampler}}) { $unsupported++; next }
            seen('sampler', $c->{sampler});
            my @got = map { [map { $_ + 0 } split / /] } $known ? split /,/, $answer : ();
            my @want = map { [$_->[0], number($_->[1]), $_->[2]] } @{$c->{kept}};
            my @off = (slack($c, $group->{logits}, \@got), same_end($c, $group->{logits}, \@got, \@want));
            my $why = $known ? differs(\@got, \@want, $group->{logits}, @off) : $answer;
            if (!defined $why) { $passed++; next }
            print "not ok - ", basename($file), " $c->{sampler} @args: $why\n";
            $failed++;
            $bad++ if $listed{$c->{sampler}};
        }
    }
    close $to;
    waitpid $pid, 0;
}
print "H-samplers: $passed passed, $failed failed, $unsupported unsupported\n";
exit($bad ? 1 : 0);
