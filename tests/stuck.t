#!/usr/bin/perl
# stuck.t - a node whose engine hangs, as with a disk that does not answer: its beats go on, for they
# come from another thread, and yet the others must not wait for it for ever.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
plan skip_all => 'lab_freeze is not built' unless -x "$build/tests/lab_freeze";

my $nodes = Nodes->new(lab => Lab->new(nodes => 4), memory => '32M', patience => 60);
$nodes->start(1 .. 4)->serving(4, 1 .. 4);
my %ask = (prompt => 'Once upon a time', max_tokens => 60);
my $right  = $nodes->alone(%ask);
my $leader = $nodes->leader(1);
my ($idle, $victim) = grep { $_ != $leader } 1 .. 4;
my ($front) = grep { $_ != $victim && $_ != $idle } 1 .. 4;

$nodes->text($front, prompt => 'A long story about a dog', max_tokens => 400);
my $idle_hold = $nodes->freeze($idle);
my $after = $nodes->ask($front, %ask);
Lab::gather(60, $after);
my ($text, $why) = Nodes::whole_text($after);
is($text, $right, 'the engine of one node hung when there was nothing to do: an answer is whole all the same')
  or diag("$why\n" . $nodes->trouble);
ok(eval { $nodes->serving(3, $front, $victim) }, 'the other three serve') or diag($@);

my $answer = $nodes->ask($front, %ask);
my $own    = $nodes->ask($victim, %ask);
my $until = Lab::now() + 60;
$answer->read_on(1) until @{$answer->{events}} >= 3 || $answer->{ended} || Lab::now() > $until;
my $hold = $nodes->freeze($victim);
ok(Lab::gather(60, $answer, $own), 'that of another in the middle of an answer: it is whole too')
  or diag($nodes->trouble);
is(Nodes::text_of($answer), $right, 'and the text is the same');
($text, $why) = Nodes::whole_text($own);
is($text, $right, 'as is that of one that was asked of it: the others compute it') or diag($why);
like($nodes->log_of($_), qr/has not moved/, "node $_ that hangs says so") or diag($nodes->log_of($_)) for $idle, $victim;
ok(eval { $nodes->serving(2, $front) }, 'the other two serve') or diag($@);
close $idle_hold;
my $held = $nodes->{node}{$victim};
$nodes->{lab}->signal($held, 'TERM');
ok(eval { Lab::await { $nodes->log_of($victim) =~ /the engine does not stop/ } 30; 1 }, 'asked to stop, it leaves without its engine');
close $hold;    # until then the kernel keeps what is left of it
is($nodes->{lab}->stop($held), 1, 'and its status says that this was no good order');
is($nodes->end($_), 0, "node $_ ends in good order") for grep { $_ != $victim } 1 .. 4;
done_testing;
