#!/usr/bin/perl
# vanish.t - the model file changes under a running answer: cut short, it ends with one sentence, at
# once, and with no signal; deleted or renamed, nothing happens at all.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use File::Copy qw(copy);
use Test::More;
use Time::HiRes qw(time);

my $dir   = scratch();
my $model = synth("$dir/model.gguf", 'llama-3.2-1b,layers=1', 'q4_0');
my $copy  = "$dir/copy.gguf";
my ($about) = objects(dair(['inspect', $model, '--json', '--tensors'])->{out});
my ($data) = sort { $a <=> $b } map { $_->{offset} } @{$about->{tensors}};
my @answer = ('run', $copy, '--raw', '-p', 'Once upon a time', '--temp', 0, '--json');

# The least memory keeps no weight: every byte of them is read for every token.
my @long = ('-n', 0, '--ctx', 1024);
copy($model, $copy) or die "copy: $!";
my ($least) = dair([@answer, @long, '--memory', '1M'])->{err} =~ /at least (\d+) MiB/ or BAIL_OUT('no least memory');

# Starts WORDS and lets it write two tokens; then it is stopped, so that what comes next comes in the
# middle of the answer however fast the machine is. Undef and a failure when it ends before.
sub halfway {
    my ($name, @words) = @_;
    my $run = begin(\@words);
    local $SIG{ALRM} = sub { kill 'KILL', -$run->{pid} };
    alarm 60;
    until (ids($run) =~ / /) { sysread $run->{from}, $run->{out}, 4096, length $run->{out} or last }
    alarm 0;
    kill 'STOP', -$run->{pid};
    return $run if ids($run) =~ / / && !keys %{figures($run)};
    finish($run, 1);
    fail("$name: two tokens, then more");
    diag("status $run->{status}: $run->{err}");
    return;
}

sub go_on { my ($run, $seconds) = @_; kill 'CONT', -$run->{pid}; return finish($run, $seconds) }

for my $case (
    ['streaming, cut to nothing',        0,              '--memory', '64M'],
    ['streaming, cut in the metadata',   5000,           '--memory', '64M'],
    ['streaming, cut in a tile',         $data + 200001, '--memory', '64M'],
    ['streaming, the last bytes cut',    (-s $model) - 10000, '--memory', "${least}M"],
    ['one thread',                       0,              '--memory', '64M', '--threads', 1],
    ['three slices',                     0,              '--memory', '110M', '--slices', '3'],
    ['three uneven slices, cut late',    $data + 90 * (1 << 20), '--memory', '110M', '--slices', '5:1:2'],
  ) {
    my ($name, $left, @how) = @$case;
    copy($model, $copy) or die "copy: $!";
    my $run = halfway($name, @answer, @long, @how) or next;
    truncate $copy, $left or die "truncate: $!";
    my $begin = time;
    go_on($run, 20);
    cmp_ok(time - $begin, '<', 10, "$name: it ends soon");
    like($run->{status}, qr/\A[13]\z/, "$name: exit status 1 or 3");
    like($run->{err}, qr/\A[^\n]+\n\z/, "$name: one sentence");
    like($run->{err}, qr/\Q$copy\E: ends after \d+ bytes/, "$name: which says that the file was cut");
}

# Nobody can take away what is open.
copy($model, $copy) or die "copy: $!";
my $whole = dair([@answer, '-n', 30, '--ctx', 64, '--memory', '64M']);
is($whole->{status}, 0, 'left alone: exit status 0') or diag($whole->{err});
for my $case (['deleted', sub { unlink $copy }], ['replaced', sub { rename $model, $copy; truncate $copy, 100 }]) {
    my ($name, $what) = @$case;
    -e $copy or copy($model, $copy) or die "copy: $!";
    my $run = halfway($name, @answer, '-n', 30, '--ctx', 64, '--memory', '64M') or next;
    $what->() or die "$name: $!";
    go_on($run, 60);
    is($run->{status}, 0, "$name: exit status 0") or diag($run->{err});
    is(ids($run), ids($whole), "$name: the same tokens");
    cmp_ok(figures($run)->{streamed_bytes} // 0, '>', 0, "$name: and it streamed");
}
done_testing();
