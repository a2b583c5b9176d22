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

my $nodes = Nodes->new(lab => Lab->new(nodes => 3), memory => '32M', patience => 60);
$nodes->start(1 .. 3)->serving(3, 1 .. 3);
my %ask = (prompt => 'Once upon a time', max_tokens => 60);
my $right  = $nodes->alone(%ask);
my $leader = $nodes->leader(1);
my ($victim) = grep { $_ != $leader } 1 .. 3;
my ($front)  = grep { $_ != $victim } 1 .. 3;

$nodes->text($front, prompt => 'A long story about a dog', max_tokens => 400);
my $answer = $nodes->ask($front, %ask);
my $own    = $nodes->ask($victim, %ask);
$answer->read_on(1) until @{$answer->{events}} >= 3 || $answer->{ended};
my $hold = $nodes->freeze($victim);
ok(Lab::gather(60, $answer, $own), 'the engine of one node hangs in the middle of an answer: it is whole all the same')
  or diag($nodes->trouble);
is(Nodes::text_of($answer), $right, 'and the text is the same');
my ($text, $why) = Nodes::whole_text($own);
is($text, $right, 'as is that of one that was asked of it: the others compute it') or diag($why);
like($nodes->log_of($victim), qr/has not moved/, 'the node that hangs says so') or diag($nodes->log_of($victim));
ok(eval { $nodes->serving(2, $front) }, 'the other two serve') or diag($@);
my $held = $nodes->{node}{$victim};
$nodes->{lab}->signal($held, 'TERM');
ok(eval { Lab::await { $nodes->log_of($victim) =~ /the engine does not stop/ } 30; 1 }, 'asked to stop, it leaves without its engine');
close $hold;    # until then the kernel keeps what is left of it
is($nodes->{lab}->stop($held), 1, 'and its status says that this was no good order');
is($nodes->end($_), 0, "node $_ ends in good order") for grep { $_ != $victim } 1 .. 3;
done_testing;
