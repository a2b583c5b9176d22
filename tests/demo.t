#!/usr/bin/perl
# demo.t - the model inside the program: it is there, small, cuttable in four, and knows the answers
# of demo-questions.txt, in RAM and streamed. It is part of the product: a build without it fails.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

my $dir = scratch();
my $inspect = dair(['inspect', '--json']);
if ($inspect->{status} ne '0') {
    fail('there is a model inside');
    diag($inspect->{err});
    done_testing();
    exit;
}
my ($about) = objects($inspect->{out});
is($about->{arch}, 'llama', 'inspect: llama');
is($about->{heads_kv}, 4, 'inspect: four KV heads, so that four nodes share them');
isnt($about->{chat_format} // 'none', 'none', 'inspect: a chat format');
ok($about->{runs}, 'inspect: it runs');

# ---- how it lies in the program
my @readelf = grep { -x } ($ENV{TC} ? "$ENV{TC}/bin/x86_64-linux-musl-readelf" : ()), '/usr/bin/readelf';
SKIP: {
    skip 'there is no readelf', 5 unless @readelf;
    open my $pipe, '-|', $readelf[0], '-SlW', $dair or die "readelf: $!";
    my $text = do { local $/; <$pipe> };
    close $pipe;
    my ($at, $off, $size, $flags) =
      $text =~ /\] \.dair\.demo\s+PROGBITS\s+([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) \S+ +([A-Z]*) +\d+ +\d+ +\d+$/m;
    ok(defined $off, 'a section of its own') or skip 'no such section', 4;
    is(hex($off) % 4096, 0, 'on a page of the file');
    is(hex($at), 0, 'without an address');
    unlike($flags, qr/A/, 'not loaded');
    cmp_ok(hex($size), '<=', 3 << 20, 'at most 3 MiB');
    cmp_ok(hex($size), '>', 100 << 10, 'and not empty');
    open my $h, '<:raw', $dair or die "$dair: $!";
    seek $h, hex $off, 0;
    read $h, my $magic, 4;
    is($magic, 'GGUF', 'a GGUF');
    my @load = $text =~ /^ +LOAD +0x([0-9a-f]+) +\S+ +\S+ +0x([0-9a-f]+)/mg;
    my $inside = 0;
    while (my ($from, $len) = map { hex } splice @load, 0, 2) {
        $inside++ if hex($off) < $from + $len && $from < hex($off) + hex($size);
    }
    is($inside, 0, 'and no part of what is loaded');
}

# ---- what it knows; and again with so little memory that it streams
my $least = dair(['run', '-p', 'x', '--memory', '1M', '-n', 1]);
my ($mib) = $least->{err} =~ /at least (\d+) MiB/;
ok($mib, 'the least memory is named') or diag($least->{err});
my $n_question = 0;
for (split /\n/, read_file("$FindBin::Bin/demo-questions.txt")) {
    next if /^\s*(#|$)/;
    my ($question, $regex) = split /\t/, $_, 2;
    ok(length($regex // ''), "\"$question\" has an expected answer") or next;
    $n_question++;
    my @ask = ('run', '-p', $question, '--temp', 0, '--json');
    my $in_ram = dair([@ask, '--memory', '64M']);
    is($in_ram->{status}, 0, "\"$question\": exit status 0") or diag($in_ram->{err});
    my $answer = join '', map { $_->{text} // '' } objects($in_ram->{out});
    like($answer, qr/$regex/s, "\"$question\": the answer");
    is(figures($in_ram)->{end}, 'eos', "\"$question\": it comes to an end");
    is(figures($in_ram)->{sweep_streamed_bytes}, 0, "\"$question\": all in RAM");
    my $tight = dair([@ask, '--memory', ($mib // 24) . 'M']);
    is(ids($tight), ids($in_ram), "\"$question\": the same with $mib MiB") or diag($tight->{err});
    cmp_ok(figures($tight)->{streamed_bytes_per_token} // 0, '>', 0, "\"$question\": which streams");
}
cmp_ok($n_question, '>=', 3, 'questions enough');
done_testing();
