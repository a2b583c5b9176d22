#!/usr/bin/perl
# sampling.t - what a run's options of choosing and stopping do to the answer of the built-in model.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use JSON::PP;
use Test::More;

my @prompt = ('-p', 'What is a node?', '-n', 40, '--temp', 0, '--quiet');

sub answer {
    my @words = @_;
    my $run = dair(['run', @prompt, @words], seconds => 60);
    is($run->{status}, '0', "run @words") or diag($run->{err});
    return $run->{out};
}

my $plain = answer();
cmp_ok(length $plain, '>', 30, 'an answer to work with');

# ---- stop strings, one of which spans tokens
my $middle = substr $plain, 9, 7;
my $before = substr $plain, 0, index $plain, $middle;
is(answer('--stop', $middle), $before, "the answer ends before \"$middle\"");
is(answer('--stop', "$middle~", '--stop', 'nowhere'), $plain, 'what only begins like one changes nothing');
my $run = dair(['run', @prompt, '--stop', 'nowhere', '--stop', $middle, '--json'], seconds => 60);
my @line = map { decode_json($_) } split /\n/, $run->{out};
is($run->{status}, '0', 'an answer that is stopped is whole');
is($line[-1]{end}, 'stop', 'its end is told');
is(join('', map { $_->{text} // '' } @line), $before, 'its pieces are the same text');

# ---- penalties and biases
my ($first, $second) = map { $_->{id} } @line[0, 1];
is(answer('--logit-bias', "$first:-inf"), answer('--logit-bias', "$first:-1000"), 'banned as by a bias that is very low');
for my $case (['99999999:1', qr/99999999, and the vocabulary has/], ['5:inf', qr/--logit-bias takes/], ['5:nan', qr/--logit-bias takes/],
    ['5:-1e39', qr/out of range/], ['5:1001', qr/out of range/]) {
    my ($bias, $says) = @$case;
    for my $verb ('run', 'chat') {
        my $refused = dair([$verb, @prompt, '--logit-bias', $bias], seconds => 60, from => '/dev/null');
        is($refused->{status}, 2, "$verb --logit-bias $bias is refused");
        like($refused->{err}, $says, 'and how it is said') or diag($refused->{err});
    }
}
isnt(answer('--logit-bias', "$first:-1000"), $plain, 'a token that is banned is not chosen');
is(answer('--logit-bias', "$second:1000", '-n', 3, '--raw', '--json') =~ s/.*"id":(\d+).*\n|.+\n?/$1 ? "$1 " : ''/ger,
    "$second $second $second ", 'one that is raised is chosen always');
my $repeats = answer('--logit-bias', "$second:12", '-n', 24);
isnt(answer('--logit-bias', "$second:12", '-n', 24, '--frequency-penalty', 10), $repeats, 'frequency penalty');
isnt(answer('--logit-bias', "$second:12", '-n', 24, '--presence-penalty', 20), $repeats, 'presence penalty');
isnt(answer('--logit-bias', "$second:12", '-n', 24, '--repeat-penalty', 30), $repeats, 'repeat penalty');
is(answer('--repeat-penalty', 30, '--repeat-last-n', 0), $plain, 'a window of none: no penalty');
my @wide = ('--logit-bias', "$second:12", '-n', 24, '--frequency-penalty', 10, '--repeat-last-n');
is(answer(@wide, -1), answer(@wide, 4096), 'a window of -1: all there is');
isnt(answer(@wide, -1), answer(@wide, 4), 'which is more than four tokens');
for my $n (-2, 4097, '-1.0') {
    my $refused = dair(['run', @prompt, '--repeat-last-n', $n]);
    is($refused->{status}, 2, "a window of $n is refused");
    like($refused->{err}, qr/--repeat-last-n takes/, 'and how it is said') or diag($refused->{err});
}
done_testing();
