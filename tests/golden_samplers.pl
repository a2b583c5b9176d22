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
    return 0 if $c->{sampler} ne 'temp_ext' || $range <= 0 || !$exponent || $n < 2;    # exponent 0: whatever the entropy
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

sub float { return unpack 'f', pack 'f', shift }

# Whether top-p may end with the first n, to some digits; sum: of the first ones' probabilities.
sub may_end {
    my ($c, $sum, $n, $off) = @_;
    my $p = float($c->{params}{p});
    return $sum->[$n] >= $p - $off && ($n <= ($c->{params}{min_keep} // 1) || $sum->[$n - 1] <= $p + $off);
}

# Top-p ends where a sum passes p, which the oracle adds up in float: n times rounds 24 bits of it. Ours is of whole
# numbers: only what is added is rounded to 24 bits. Where two answers are of different length for that reason alone, the
# longer one is cut to the other's, and its probabilities are made those of fewer.
sub same_end {
    my ($c, $logits, $got, $want) = @_;
    return if $c->{sampler} ne 'top_p' || !@$got || !@$want || @$got == @$want;
    my @l = sort { $b <=> $a } map { float($_) } @$logits;
    my ($all, @sum) = (0, 0);
    push @sum, $all += exp($_ - $l[0]) for @l;
    $_ /= $all for @sum;
    return if !may_end($c, \@sum, scalar @$got, 1e-7) || !may_end($c, \@sum, scalar @$want, @l * 2 ** -24);
    my ($long, $few) = @$got > @$want ? ($got, scalar @$want) : ($want, scalar @$got);
    my $times = $sum[@$long] / $sum[$few];
    @$long = (sort { $b->[1] <=> $a->[1] || $a->[0] <=> $b->[0] } @$long)[0 .. $few - 1];
    $_->[2] *= $times for @$long;
}

# Undef when alike, else what differs. With slack, by that share more in the logits, and by what follows, and follows
# from rounding these, in the probabilities.
sub differs {
    my ($got, $want, $logits, $slack) = @_;
    return 'keeps ' . @$got . ', want ' . @$want if @$got != @$want;
    my %times;
    $times{$_ + 0}++ for @$logits;
    my @got = sort { $b->[1] <=> $a->[1] || $a->[0] <=> $b->[0] } @$got;
    my @want = sort { $b->[1] <=> $a->[1] || $a->[0] <=> $b->[0] } @$want;
    my %kept = map { $_->[0] => 1 } @want;
    for my $i (0 .. $#got) {
        my ($g, $w) = ($got[$i], $want[$i]);
        return "logit $g->[1], want $w->[1]" unless near($g->[1], $w->[1], 1e-6 + $slack);
        my ($most, $more) = (abs($got[0][1]) + abs $g->[1], 0);
        $more = $slack * (1 + 2 * abs($got[0][1] - $g->[1])) + 2 ** -22 * $most if $slack && $most < 9**9**9;
        return "p $g->[2], want $w->[2]" unless near($g->[2], $w->[2], 2e-5 + $more);
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
            my $slack = slack($c, $group->{logits}, \@got);
            same_end($c, $group->{logits}, \@got, \@want);
            my $why = $known ? differs(\@got, \@want, $group->{logits}, $slack) : $answer;
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
