#!/usr/bin/env perl
# Bad model files against the program itself: exit 3 or 4 for what must be refused, 0 for what is
# fine, and for none of them a signal, a hang or more than 2 GB; what is refused is named. Files and
# expectations are others' work: E-malformed in DAIR_TESTDATA. DAIR_BIN (or DAIR, as `make` sets it) is the program.
use strict;
use warnings;
use JSON::PP ();

my $dir = ($ENV{DAIR_TESTDATA} // '../shared/testdata') . '/E-malformed';
my $dair = $ENV{DAIR_BIN} // $ENV{DAIR} // 'build/x86_64/dair';
my $seconds = 10;

sub skip_all { print "1..0 # SKIP $_[0]\n"; exit 0 }
skip_all("$dir is not there") unless -r "$dir/cases.json";
skip_all("$dair is not there") unless -x $dair;

open my $in, '<', "$dir/cases.json" or die "$dir/cases.json: $!\n";
my $cases = JSON::PP->new->decode(do { local $/; <$in> });
close $in;

# AddressSanitizer maps terabytes of address space; its own limit stands in for ours.
open my $bin, '<:raw', $dair or die "$dair: $!\n";
my $asan = do { local $/; <$bin> } =~ /__asan_init/;
close $bin;
my $limit = $asan ? '' : 'ulimit -v 2097152 &&';
$ENV{ASAN_OPTIONS} = join ':', grep { defined && length } $ENV{ASAN_OPTIONS},
    'hard_rss_limit_mb=2048', 'detect_leaks=0';

# Runs it, with its chat template where that is what is bad; (exit status or undef, "signal N" or "hangs", first line of stderr).
sub run {
    my ($file, @more) = @_;
    my $pid = open(my $out, '-|') // die "fork: $!\n";
    if (!$pid) {
        setpgrp 0, 0;
        open STDERR, '>&', \*STDOUT;
        open STDIN, '<', '/dev/null';
        exec 'sh', '-c', "$limit exec \"\$0\" \"\$@\"", $dair, 'run', $file, '-p', 'a', '-n', '2',
            @more;
        die "exec: $!\n";
    }
    my ($text, $hang) = ('', 0);
    local $SIG{ALRM} = sub { $hang = 1; kill 'KILL', -$pid };
    alarm $seconds;
    while (sysread $out, my $part, 65536) { $text .= $part if length $text < 65536 }
    close $out;
    alarm 0;
    my $status = $?;
    my ($line) = reverse grep { length } split /\n/, $text;
    $line = substr $line // '', 0, 200;
    $line =~ s/[^\x20-\x7e]/?/g;
    return (undef, 'hangs', $line) if $hang;
    return (undef, 'signal ' . ($status & 127), $line) if $status & 127;
    return ($status >> 8, '', $line);
}

my $n = 0;
for my $case (@$cases) {
    my $expect = $case->{expect};
    my ($status, $how, $line) = run("$dir/$case->{file}", $case->{cls} eq 'template' ? () : '--raw');
    my $ok = defined $status && $status < 128;
    if ($expect eq 'accept') { $ok &&= $status == 0 }
    elsif ($expect eq 'reject') { $ok &&= $status == 3 || $status == 4 }
    elsif ($expect ne 'no_crash') { $ok &&= $status == 0 || $status == 3 || $status == 4 }
    $ok &&= index($line, $case->{file}) >= 0 if $status;    # which of several it was
    printf "%s %d - %s (%s): %s\n", $ok ? 'ok' : 'not ok', ++$n, $case->{id}, $expect,
        defined $status ? "exit $status" : $how;
    print "# $line\n" if length $line;
}
print "1..$n\n";
