#!/usr/bin/perl
# run.t - `make run`: three nodes find each other and answer with most of the model streamed; nothing is
# left behind.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use File::Copy 'copy';
use File::Temp 'tempdir';
use Test::More;

plan skip_all => 'sanitizers take more memory than it gives' if is_sanitized();
my $mark = "DAIR_RUN_TEST=$$." . time;
my @script = ($^X, "$FindBin::Bin/../image/demo/run.pl", $dair);
# Nothing of it takes rights: where we are root, nobody runs it, from a place that nobody may read, as root's home is not.
my $whose = 'as it is called';
if (!$> && (my ($setpriv) = grep { -x } map { "$_/setpriv" } split /:/, $ENV{PATH})) {
    my $dir = tempdir(CLEANUP => 1, TMPDIR => 1);
    chmod 0755, $dir;
    for my $from (@script[1, 2]) {
        (my $to = $from) =~ s{.*/}{$dir/};
        copy($from, $to) or die "$to: $!";
        chmod 0755, $to;
        $from = $to;
    }
    unshift @script, $setpriv, '--reuid=65534', '--regid=65534', '--clear-groups';
    $whose = 'by nobody';
}

# Processes that have our mark in their environment.
sub left { return grep { index(read_file("$_/environ"), $mark) >= 0 } glob '/proc/[0-9]*' }

my $run = begin([$mark, 'ONCE=1', @script], bin => '/usr/bin/env');
finish($run, 100);
is($run->{status}, 0, "ONCE=1, $whose: exit status 0") or diag("$run->{out}\n$run->{err}");
like($run->{out}, qr/answer\s+goes\s+on/, 'the question is answered sensibly');
my $n = () = $run->{out} =~ /^ +[\d.]+ s  node \d: 3 nodes serve/mg;
is($n, 3, 'each node says that three serve');
my @line = $run->{out} =~ /^(dair-\w+ .*kept.*)$/mg;
is(scalar @line, 3, 'a line for each node');
is(scalar(grep { /from the disk/ } @line), 3, 'each streams');
like($run->{out}, qr{page of each node: http://127\.0\.0\.1:\d+/}, 'the address of the page');
is(scalar left(), 0, 'no process is left');

# Until Ctrl-C, and again: ports that are taken are passed over.
my $stay = begin([$mark, @script], bin => '/usr/bin/env');
my $out = '';
local $SIG{ALRM} = sub { kill 'KILL', -$stay->{pid} };
alarm 100;
while ($out !~ /Ctrl-C ends it/ && sysread $stay->{from}, $out, 4096, length $out) { }
alarm 0;
like($out, qr/Ctrl-C ends it/, 'without ONCE it stays');
is(scalar(left()), 4, 'three nodes and the script');
kill 'INT', $stay->{pid};
finish($stay, 30);
is($stay->{status}, 0, 'Ctrl-C ends it with status 0') or diag($stay->{err});
is(scalar left(), 0, 'and no process is left');
done_testing();
