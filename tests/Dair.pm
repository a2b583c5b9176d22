# Dair.pm - what the tests of the whole program share: running it with a time limit, reading its JSON,
# a folder on a real disk that goes away again, and a model to stream.
package Dair;
use strict;
use warnings;
use Cwd qw(abs_path);
use Exporter 'import';
use File::Temp qw(tempdir);
use JSON::PP ();
use POSIX qw(:sys_wait_h);
use Test::More;

our @EXPORT = qw($dair $build scratch dair begin finish end_all ids figures objects synth testdata have is_sanitized
  write_file read_file);

my ($arch) = `uname -m` =~ /(\w+)/;
our $dair  = abs_path($ENV{DAIR_BIN} || $ENV{DAIR} || "build/$arch/dair") // '';
our $build = abs_path($ENV{DAIR_BUILD} || "build/$arch") // '.';
plan skip_all => 'dair is not built' unless -x $dair;
Test::More->builder->failure_output(\*STDOUT);  # where prove.pl can repeat it at the end

# Ended from outside: leave by exit, so that everything is tidied up.
$SIG{$_} = sub { exit 130 } for qw(INT TERM HUP);

# A new folder under build/, so on a disk (/tmp may be memory), removed at the end.
sub scratch { return tempdir('test-XXXXXX', DIR => $build, CLEANUP => 1) }

sub read_file { my $f = shift; open my $h, '<:raw', $f or return ''; local $/; return scalar(<$h>) // '' }
sub write_file { my ($f, $t) = @_; open my $h, '>:raw', $f or die "$f: $!"; print $h $t; close $h or die "$f: $!" }
sub testdata { return ($ENV{DAIR_TESTDATA} // '../shared/testdata') . "/$_[0]" }
sub have { my $tool = shift; return grep { -x "$_/$tool" } split /:/, $ENV{PATH} // '' }

# AddressSanitizer and its like: other memory, other system calls.
sub is_sanitized { return $build =~ m{/san-} }

# begin WORDS, OPTIONS: dair WORDS with its stdout in a pipe. OPTIONS: prefix => [words before dair],
# bin => another dair, from => a file as its stdin, enter => what the child does first. Returns {pid, out handle, stderr's file}.
my (%running, $n_begun);

sub begin {
    my ($words, %o) = @_;
    my $err = File::Temp->new(TEMPLATE => 'stderr-XXXXXX', DIR => $build, UNLINK => 1);
    my @words = (@{$o{prefix} // []}, $o{bin} // $dair, @$words);
    pipe my $r, my $w or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        setpgrp 0, 0;
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        $o{enter}->() if $o{enter};
        open STDIN,  '<',  $o{from} // '/dev/null' or POSIX::_exit(126);
        open STDOUT, '>&', $w          or POSIX::_exit(126);
        open STDERR, '>&', $err        or POSIX::_exit(126);
        exec { $words[0] } @words or POSIX::_exit(127);
    }
    setpgrp $pid, $pid;
    close $w;
    $running{$pid} = $$;
    return {pid => $pid, from => $r, err_file => $err, words => "@words", out => ''};
}

# finish RUN, SECONDS: waits for its end, kills it at the limit. Fills status (-signal, "hangs"), out, err.
sub finish {
    my ($run, $seconds) = @_;
    local $SIG{ALRM} = sub { $run->{hangs} = 1; kill 'KILL', -$run->{pid} };
    alarm($seconds // 120);
    while (sysread $run->{from}, my $part, 65536) { $run->{out} .= $part }
    1 while waitpid($run->{pid}, 0) < 0 && $!{EINTR};
    my $status = $?;
    alarm 0;
    delete $running{$run->{pid}};
    $run->{status} = $run->{hangs} ? 'hangs' : WIFSIGNALED($status) ? -WTERMSIG($status) : WEXITSTATUS($status);
    $run->{err} = read_file($run->{err_file}->filename);
    return $run;
}

sub dair { my ($words, %o) = @_; return finish(begin($words, %o), $o{seconds}) }

# Ends what still runs, as when a test is stopped from outside.
sub end_all {
    local $?;
    for my $pid (grep { $running{$_} == $$ } keys %running) {
        kill 'KILL', -$pid;
        waitpid $pid, 0;
        delete $running{$pid};
    }
}
END { end_all() }

# Of the output of `run --json`: the ids as text, and the last object.
sub objects {
    my $json = JSON::PP->new->utf8;
    return grep { ref eq 'HASH' } map { eval { $json->decode($_) } // () } split /\n/, shift;
}
sub ids { return join ' ', map { $_->{id} // () } objects($_[0]{out}) }
sub figures { my $run = shift; my ($last) = grep { defined $_->{end} } objects($run->{out}); return $last // {} }

# A model of random weights in FILE; dies where that fails, as nothing can be tested then.
sub synth {
    my ($file, $shape, $type, $seed) = @_;
    my $run = dair(['synth', '--shape', $shape, '--type', $type, '-o', $file, '--quiet', '--seed', $seed // 0]);
    BAIL_OUT("dair synth: $run->{status} $run->{err}") if $run->{status} ne '0' || !-s $file;
    return $file;
}

1;
