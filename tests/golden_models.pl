#!/usr/bin/perl
# golden_models.pl DIR: C-models run against G-golden, one verdict a run (prompt) of each file.
#
# Float weights must be within 1e-3 of `exact` (1e-2 at most where GELU is, which the oracle takes from a
# table of halves); quantised ones within 1.25 x of the error that the oracle's own quantised kernels show
# against `exact` (maximum and mean). Greedy ids are compared up to
# the first margin that the allowed error could overturn. What tests/supported.txt does not list counts
# as unsupported when dair refuses it, and as failed when it answers wrongly.
use strict;
use warnings;
use JSON::PP;
use IPC::Open2;
use File::Basename;

my $dir = shift or die "usage: golden_models.pl DIR\n";
my $build = $ENV{DAIR_BUILD} || 'build/x86_64';
my $here = dirname(__FILE__);
my %supported;
open my $sf, '<', "$here/supported.txt" or die "supported.txt: $!\n";
while (<$sf>) { s/#.*//; $supported{"$1 $2"} = 1 if /^\s*(\S+)\s+(\S+)/ }
$SIG{PIPE} = 'IGNORE';    # a driver that refuses the model does not read its requests
my ($passed, $failed, $unsupported) = (0, 0, 0);

sub slurp { my $f = shift; open my $h, '<:raw', $f or return; local $/; return scalar <$h> }

# Ask the driver; returns (status, answers).
sub ask {
    my ($model, @lines) = @_;
    my $pid = open2(my $out, my $in, "$build/tests/golden_logits", $model, 'f32', 'f32');
    print $in "$_\n" for @lines;
    close $in;
    binmode $out;
    my @answers;
    while (defined(my $head = <$out>)) {
        if ($head =~ /^logits (\d+) (\d+)/) {
            my ($t, $v, $raw) = ($1, $2, '');
            read($out, $raw, 4 * $t * $v, length $raw) or last while length $raw < 4 * $t * $v;
            push @answers, [map { [unpack 'f<*', substr $raw, 4 * $v * $_, 4 * $v] } 0 .. $t - 1];
        } elsif ($head =~ /^greedy(.*)/) { push @answers, [split ' ', $1] }
    }
    waitpid $pid, 0;
    return ($? >> 8 || ($? ? 128 : 0), @answers);
}

# Largest and mean |ours - exact| where exact is known: all logits from the file, else the top tens.
sub errors {
    my ($run, $exact, $logits, $golden) = @_;
    my ($max, $sum, $n) = (0, 0, 0);
    my $see = sub { my $e = abs($_[0] - $_[1]); $e = 1e9 if $e != $e; $max = $e if $e > $max; $sum += $e; $n++ };
    my $raw = $run->{logits_file} && slurp("$golden/$run->{logits_file}");
    if ($raw) {
        my $v = @{$logits->[0]};
        for my $t (0 .. $#$logits) {
            my @want = unpack 'f<*', substr $raw, 4 * $v * $t, 4 * $v;
            $see->($logits->[$t][$_], $want[$_]) for 0 .. $v - 1;
        }
    } else {
        for my $t (keys %{$exact->{top10}}) {
            $see->($logits->[$t][$_->[0]], $_->[1]) for @{$exact->{top10}{$t}};
        }
    }
    return ($max, $n ? $sum / $n : 0);
}

sub nll {
    my ($logits, $ids) = @_;
    my ($sum, $n) = (0, 0);
    for my $t (0 .. $#$ids - 1) {
        my $row = $logits->[$t];
        my ($m, $z) = ((sort { $b <=> $a } @$row)[0], 0);
        $z += exp($_ - $m) for @$row;
        $sum += $m + log($z) - $row->[$ids->[$t + 1]];
        $n++;
    }
    return $n ? $sum / $n : undef;
}

sub judge_run {
    my ($run, $float, $gelu, $logits, $greedy, $golden) = @_;
    my $exact = $run->{exact} || $run->{native};
    my ($max, $mean) = errors($run, $exact, $logits, $golden);
    my $nve = $run->{native_vs_exact};
    my ($max_ok, $mean_ok) =
      $float ? ($gelu ? 1e-2 : 1e-3, 1e-3) : (1.25 * $nve->{max_abs}, 1.25 * $nve->{mean_abs});
    my @bad;
    push @bad, sprintf('max error %.4g > %.4g', $max, $max_ok) if $max > $max_ok;
    # the mean is only comparable where all logits are known
    push @bad, sprintf('mean error %.4g > %.4g', $mean, $mean_ok)
        if $run->{logits_file} && $mean > $mean_ok;
    my $want = $exact->{nll_mean};
    my $nll = nll($logits, $run->{tokens});
    push @bad, "nll $nll, want $want" if defined $want && defined $nll && abs($nll - $want) > 2 * $max_ok;
    for my $i (0 .. $#{$exact->{greedy}}) {
        last if $exact->{margins}[$i] < 2 * $max_ok;
        next if $greedy->[$i] == $exact->{greedy}[$i];
        push @bad, "greedy id $i is $greedy->[$i], want $exact->{greedy}[$i]";
        last;
    }
    return ($max, $mean, @bad);
}

for my $file (sort glob "$dir/C-models/*.gguf") {
    my $name = basename($file, '.gguf');
    (my $golden = $name) =~ s/^split-(.+)-00001-of-\d{5}$/$1/;    # cut from the file of that name
    my $text = slurp("$dir/G-golden/$golden.json") or next;
    my $g = decode_json($text);
    my @runs = @{$g->{runs}};
    my @ask;
    push @ask, "logits @{$_->{tokens}}",
        'greedy ' . scalar(@{($_->{exact} || $_->{native})->{greedy}}) . " @{$_->{tokens}}" for @runs;
    my ($status, @answers) = ask($file, @ask);
    my $listed = $supported{"model $name"};
    my $head = slurp($file);
    my $arch = $head =~ /general\.architecture.{12}([\w-]+)/s ? $1 : '';
    my $gelu = $arch =~ /^(gemma|phi2)/;
    if (!$listed) {    # a wider match: architecture and all weight types are listed
        $arch .= '+experts' if $head =~ /\Q$arch\E\.expert_count/;
        $listed = $supported{"arch $arch"} && !grep { !$supported{"type $_"} } keys %{$g->{types}};
    }
    if ($status == 4 && !$listed) { $unsupported += @runs; next }
    if (@answers != @ask) {
        print "not ok - $name: exit status $status\n";
        $failed += @runs;
        next;
    }
    my $float = !grep { !/^(F32|F16|BF16)$/ } keys %{$g->{types}};
    for my $i (0 .. $#runs) {
        my ($max, $mean, @bad) =
            judge_run($runs[$i], $float, $gelu, @answers[2 * $i, 2 * $i + 1], "$dir/G-golden");
        my $line = sprintf '%s %s: max error %.3g, mean %.3g', $name, $runs[$i]{prompt}, $max, $mean;
        if (@bad) { $failed++; print "not ok - $line: ", join('; ', @bad), "\n" }
        else { $passed++; print "# $line\n" if $ENV{VERBOSE} }
    }
}
print "C-models + G-golden: $passed passed, $failed failed, $unsupported unsupported\n";
exit($failed ? 1 : 0);
