#!/usr/bin/perl
# prove.pl [-j N] TEST... - runs TAP tests and ends with "N passed, N failed, N skipped".
# TEST is a program, a script (.t .sh .pl), FILE@CPU (an ARM program under QEMU as that core), or
# either with :WORD instead of a program's own TAP: "FILE:WORD" runs FILE WORD, one test, by its
# exit status. A test that says nothing for long is ended and counts as failed.
use strict;
use warnings;
use TAP::Harness;

use constant {SAY_FIRST => 8, SAY_LAST => 16};    # lines of what one failed test says

my $jobs = 1;
if (@ARGV && $ARGV[0] eq '-j') { shift; $jobs = shift; }
my $limit = $ENV{TEST_TIMEOUT} || 600;    # seconds for one test program

# What counts is what ran: our own wrapper turns an exit status into TAP.
my $by_status = 'name=$1; shift; if out=$("$@" 2>&1); then ok=ok; else ok="not ok"; fi; '
  . 'printf "%s\n" "$out" | sed "s/^/# /"; echo "$ok 1 - $name"; echo 1..1';

sub command {
    my (undef, $test) = @_;
    my ($file, $cpu) = split /@/, $test, 2;
    my ($prog, $word) = split /:/, $file, 2;
    my @run = ($prog);
    if ($prog =~ /\.(t|sh|pl)$/) {
        open my $in, '<', $prog or die "$prog: $!\n";
        my $first = <$in> // '';
        @run = ($first =~ /^#!.*\bsh\b|^#!.*\bbash\b/ || $prog =~ /\.sh$/
            ? ($first =~ /bash/ ? 'bash' : 'sh') : 'perl', $prog);
    }
    @run = ($ENV{QEMU}, '-cpu', $cpu, @run) if $cpu;
    @run = ('sh', '-c', $by_status, 'sh', $test, @run, $word) if defined $word;
    return ['timeout', '-k', '10', $limit, @run];
}

my $harness = TAP::Harness->new({
    exec => \&command, jobs => $jobs, verbosity => $ENV{V} ? 1 : 0, merge => 0,
    color => -t STDOUT ? 1 : 0, timer => 1,
    # What is bounded in seconds, or hangs on what is measured of the machine, is tried with nothing beside it.
    rules => {seq => [{seq => '{tests/{kill,lab,draft,budget}.t,build/*/tests/test_ahead}'}, {par => '**'}]},
});

# What a failed test said of itself is told again at the end, where whoever has only that can read it.
my (%says, @failures);    # by name what the failed test at hand says; [what failed, lines..]
$harness->callback(made_parser => sub {
    my ($parser, $job) = @_;
    my $name = $job->[1];
    $parser->callback(test => sub {
        my $t = shift;
        push @failures, ["$name: " . $t->as_string] if !$t->is_ok;
        $says{$name} = $t->is_ok ? undef : $failures[-1];
    });
    $parser->callback(comment => sub {
        my $said = $says{$name} or return;
        push @$said, '    ' . $_[0]->as_string;
        splice @$said, 1 + SAY_FIRST, 2, '    ..' if @$said > 2 + SAY_FIRST + SAY_LAST;
    });
});
my $all = $harness->runtests(@ARGV);

my ($passed, $failed, $skipped) = (0, 0, 0);
my @why;
for my $p ($all->parsers) {
    my $bad = $p->failed;
    $failed += $bad;
    if (defined $p->skip_all) { $skipped++; push @why, $p->skip_all || 'no reason given'; }
    $skipped += $p->skipped;
    # A passed line that is skipped is not a pass; a broken or cut-off run is a failure of its own.
    $passed += $p->passed - $p->skipped;
    $failed++ if !$bad && ($p->parse_errors || $p->exit || $p->wait);
}
print "skipped: $_\n" for @why;
print "$_\n" for map { @$_ } @failures;
print "$passed passed, $failed failed, $skipped skipped\n";
exit($failed || !$all->all_passed ? 1 : 0);
