#!/usr/bin/perl
# strace.t - what the kernel sees of a streaming run: weights come by pread past the page cache and
# are never mapped, from token to token nothing is allocated, and a disk that fails now and then, or
# for good, is survived or reported.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

use constant WINDOW => 64 << 10;    # what metadata is read by

plan skip_all => 'strace is not here' unless have('strace');
plan skip_all => 'strace may not trace here' if system('strace -f -o /dev/null true 2>/dev/null');
plan skip_all => 'a sanitizer makes system calls of its own' if is_sanitized();

my $dir = scratch();
my $model = synth("$dir/model.gguf", 'llama-3.2-1b,layers=1', 'q4_0');
my $log = "$dir/log";
my @answer = ('run', $model, '--raw', '-p', 'Once upon a time', '-n', 6, '--ctx', 64, '--temp', 0, '--json');
my @stream = (@answer, '--memory', '64M');

my $plain = dair(\@stream);
my $want = ids($plain);
is($plain->{status}, 0, 'untraced: exit status 0') or diag($plain->{err});
cmp_ok(figures($plain)->{streamed_bytes} // 0, '>', 0, 'untraced: it streams');

my ($about) = objects(dair(['inspect', $model, '--json', '--tensors'])->{out});
my @tensor = sort { $a->{offset} <=> $b->{offset} } @{$about->{tensors} // []};
my $data = @tensor ? $tensor[0]{offset} : 0;
cmp_ok($data, '>', 0, 'inspect says where the weights begin');
my @matrix = grep { @{$_->{shape}} > 1 } @tensor;
my $is_direct = !system "dd if='$model' of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null";

# Runs under strace; the calls as [thread, name, words, result], each where it ended.
sub traced {
    my ($calls, @words) = @_;
    my @strace = ('strace', '-f', '-qq', '-y', '-s', 0, '-e', 'signal=none', '-e', "trace=$calls", '-o', $log);
    my $run = dair(\@words, prefix => \@strace);
    my (@call, %begun);
    for (split /\n/, read_file($log)) {
        my ($thread, $rest) = /^(\d+) +(.*)$/ or next;
        if ($rest =~ /^(.*?) <unfinished \.\.\.>$/) { $begun{$thread} = $1; next }
        $rest = ($begun{$thread} // '') . $1 if $rest =~ /^<\.\.\. \w+ resumed>(.*)$/;
        push @call, [$thread, $1, $2, $3] if $rest =~ /^(\w+)\((.*)\) += (\S+)/;
    }
    return ($run, @call);
}

# ---- how the weights come
my ($run, @call) = traced('open,openat,close,dup,dup2,dup3,mmap,read,readv,pread64,preadv,preadv2', @stream);
is($run->{status}, 0, 'traced: exit status 0') or diag($run->{err});
is(ids($run), $want, 'traced: the same tokens');
my (%flags, @mapped, @late, @stray, @cached, %seen);
my ($n_weights, $n_sample) = (0, 0);
for my $c (@call) {
    my ($thread, $name, $words, $result) = @$c;
    if ($name =~ /^open/ && $result =~ /^(\d+)</) { $flags{$1} = $words; next }
    next unless index($words, $model) >= 0;
    my ($fd) = $words =~ /^(\d+)</;
    push @mapped, "$name($words)" if $name eq 'mmap';
    push @stray,  "$name($words)" if $name =~ /^(dup\d?|read|readv|preadv2?)$/;
    next unless $name eq 'pread64' && $result =~ /^\d+$/;
    my ($len, $at) = $words =~ /, (\d+), (\d+)$/ or next;
    next if $at == 0 && $result <= 4096;    # the trial, whether the file takes O_DIRECT
    if ($at >= $data) {
        $n_weights++;
        $seen{$at}++;
        next if ($flags{$fd} // '') =~ /O_DIRECT/;
        if ($len == 4096) { $n_sample++; next }    # the model's fingerprint, taken once
        push @cached, "$name($words)";
    } elsif (($flags{$fd} // '') !~ /O_DIRECT/ && $at + $result > $data + WINDOW) {
        push @late, "$name($words) = $result";
    }
}
is("@mapped[0 .. ($#mapped > 3 ? 3 : $#mapped)]", '', 'the model is never mapped');
is("@stray[0 .. ($#stray > 3 ? 3 : $#stray)]", '', 'and read in no other way than by pread');
is("@late[0 .. ($#late > 3 ? 3 : $#late)]", '', 'metadata is read no further than a window into the weights');
cmp_ok($n_weights, '>', 6 * 10, 'weights are read again for each token');
cmp_ok(scalar(grep { $_ >= 6 } values %seen), '>', 10, 'the same ones');
SKIP: {
    skip 'this filesystem refuses O_DIRECT', 3 unless $is_direct;
    is("@cached[0 .. ($#cached > 3 ? 3 : $#cached)]", '', 'every read of weights goes past the page cache');
    ok(figures($run)->{is_direct}, 'and the figures say so');
    cmp_ok($n_sample, '<=', 66, "but for $n_sample samples of 4 KiB for the fingerprint");
}

# ---- from the first token to the last, nothing is allocated
for my $how (
    ['streaming',    @stream],
    ['in RAM',       @answer, '--memory', '400M'],
    ['three slices', @answer, '--memory', '120M', '--slices', 3],
  ) {
    my ($name, @words) = @$how;
    ($run, @call) = traced('brk,mmap,mremap,munmap,clone,clone3,write,writev', @words);
    is(ids($run), $want, "$name: the same tokens") or diag("$run->{status}: $run->{err}");
    my @out = grep { $call[$_][1] =~ /^writev?$/ && $call[$_][2] =~ /^1</ } 0 .. $#call;
    cmp_ok(scalar @out, '>=', 6, "$name: each token is written when it is there");
    my @between = @out < 6 ? () : grep { $_->[1] !~ /^write/ } @call[$out[0] .. $out[5]];
    is(join(' ', map { "$_->[1]($_->[2])" } @between), '', "$name: no memory is asked for between them");
    ok((grep { $_->[1] eq 'mmap' } @call), "$name: before, it is: the trace shows such calls");
}

# ---- disks that fail. strace counts the calls of each thread by itself: the first thread reads the
# metadata, others measure the disk and then read the weights. Returns the run, the offsets of broken reads.
sub broken {
    my ($how, @words) = @_;
    my @strace = ('strace', '-f', '-qq', '-P', $model, '-e', 'signal=none', '-e', 'trace=pread64', '-o', $log);
    my $r = dair(\@words, seconds => 60, prefix => [@strace, '-e', "inject=pread64:$how"]);
    return ($r, map { /, (\d+)\) += -1 .*\(INJECTED\)/ ? $1 : () } split /\n/, read_file($log));
}

my @broken;
for my $case (
    ['one EIO',                'error=EIO:when=7'],
    ['EIO every tenth time',   'error=EIO:when=7+10'],
    ['EINTR every third time', 'error=EINTR:when=5+3'],
  ) {
    my ($name, $how) = @$case;
    ($run, @broken) = broken($how, @stream);
    ok((grep { $_ < $data } @broken), "$name: while metadata is read");
    ok((grep { $_ >= $data } @broken), "$name: while weights are");
    is($run->{status}, 0, "$name: exit status 0") or diag($run->{err});
    is(ids($run), $want, "$name: the same tokens");
}

# For good, at once and when the first tokens are out.
($run, @broken) = broken('error=EIO:when=2+', @stream);
is($run->{status}, 1, 'EIO from the start: exit status 1') or diag($run->{err});
like($run->{err}, qr/\A[^\n]*\Q$model\E[^\n]*\n\z/, 'EIO from the start: a sentence that names the file');

($run, @call) = traced('pread64', @stream);
my $first = @call ? $call[0][0] : 0;
my $late = 100 + 2 * grep { $_->[0] == $first } @call;    # more than metadata needs
for my $more ([], ['--threads', 1]) {
    my $name = join ' ', 'EIO for good', @$more;
    ($run, @broken) = broken("error=EIO:when=$late+", @answer, '-n', 100, '--ctx', 128, '--memory', '90M', @$more);
    ok(@broken >= 3, "$name: tried more than once");
    is($run->{status}, 1, "$name: exit status 1") or diag($run->{err});
    like(ids($run), qr/\A\Q$want\E /, "$name: not before the first tokens");
    like($run->{err}, qr/\A[^\n]+\n\z/, "$name: one sentence");
    like($run->{err}, qr{\Q$model\E: reading at byte \d+: (I|Input)/(O|output) error}, "$name: the file and the offset");
    my ($tensor, $offset) = $run->{err} =~ /([\w.]+\.weight).* byte (\d+)/;
    my ($named) = grep { $_->{name} eq ($tensor // '') } @tensor;
    ok($named && $offset < $named->{offset} + $named->{bytes} && $offset + 4096 > $named->{offset},
        "$name: the tensor that lies there") or diag($run->{err});
}

# ---- a disk that cannot be measured is said, and its file is closed again
my @strace = ('strace', '-f', '-qq', '-y', '-e', 'signal=none', '-e', 'trace=open,openat,close,clone,clone3', '-o', $log);
$run = dair(['doctor', $model], prefix => [@strace, '-e', 'inject=clone,clone3:error=EAGAIN']);
like($run->{out}, qr/^disk +WRONG reader threads/m, 'doctor: no thread to read with') or diag($run->{err});
my ($n_open, $n_closed) = map { scalar(() = read_file($log) =~ /$_/g) } qr/^.*open.* = \d+<\Q$model\E>$/m, qr/^.*close\(\d+<\Q$model\E>\) += 0$/m;
cmp_ok($n_open, '>=', 3, 'the model is opened for what it is, and to be measured');
is($n_closed, $n_open, 'and closed as often');

done_testing();
