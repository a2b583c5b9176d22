#!/usr/bin/perl
# set.t - a model in several files answers as the one file it was cut from: in RAM, streamed, by slices;
# it is shown as what it is, and a node takes the first file of a set for a model and not the others.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use IO::Socket::INET;
use Test::More;

my $dir = scratch();
my $whole = synth("$dir/whole.gguf", 'llama-3.2-1b,layers=1', 'q8_0');

# ---- cut a GGUF file in three, at tensors
my %size = (0 => 1, 1 => 1, 2 => 2, 3 => 2, 4 => 4, 5 => 4, 6 => 4, 7 => 1, 10 => 8, 11 => 8, 12 => 8);

sub text_at { my ($b, $at) = @_; my $n = unpack 'Q<', substr $$b, $at, 8; return (substr($$b, $at + 8, $n), $at + 8 + $n) }

sub end_of_value {
    my ($b, $at, $type) = @_;
    return (text_at($b, $at))[1] if $type == 8;
    return $at + $size{$type} if $type != 9;
    my ($elem, $n) = unpack 'VQ<', substr $$b, $at, 12;
    $at += 12;
    return $at + $n * $size{$elem} if $elem != 8;
    (undef, $at) = text_at($b, $at) for 1 .. $n;
    return $at;
}

sub cut {
    my ($file, $stem, @at) = @_;
    my $b = read_file($file);
    my ($n_tensor, $n_kv, $p) = (unpack('Q<Q<', substr $b, 8, 16), 24);
    for (1 .. $n_kv) {
        (undef, $p) = text_at(\$b, $p);
        $p = end_of_value(\$b, $p + 4, unpack 'V', substr $b, $p, 4);
    }
    my $keys = substr $b, 24, $p - 24;
    my @info;
    for (1 .. $n_tensor) {
        my ($from, $name) = ($p);
        ($name, $p) = text_at(\$b, $p);
        $p += 4 + 8 * unpack('V', substr $b, $p, 4) + 4;
        push @info, [substr($b, $from, $p - $from), unpack 'Q<', substr $b, $p, 8];
        $p += 8;
    }
    $p += -$p % 32;
    $info[$_][2] = ($_ < $#info ? $info[$_ + 1][1] : length($b) - $p) - $info[$_][1] for 0 .. $#info;
    my @made;
    push @at, scalar @info;
    for my $i (0 .. $#at) {
        my @mine = @info[($i ? $at[$i - 1] : 0) .. $at[$i] - 1];
        my ($head, $data, $off) = ('', '', 0);
        for (@mine) {
            $head .= $_->[0] . pack 'Q<', $off;
            $data .= substr $b, $p + $_->[1], $_->[2];
            $off += $_->[2];
        }
        my $split = join '', map { pack 'Q</aVV', @$_ } ['split.no', 4, $i], ['split.count', 4, scalar @at],
            ['split.tensors.count', 5, scalar @info];
        my $file = pack('a4VQ<Q<', 'GGUF', 3, scalar @mine, ($i ? 0 : $n_kv) + 3) . ($i ? '' : $keys) . $split . $head;
        $file .= "\0" x (-length($file) % 32);
        push @made, sprintf '%s-%05d-of-%05d.gguf', $stem, $i + 1, scalar @at;
        write_file($made[-1], $file . $data);
    }
    return @made;
}

mkdir "$dir/models" or die $!;
my ($first, $second, $third) = cut($whole, "$dir/models/part", 3, 7);

# ---- the same answers
my @ask = ('--raw', '-p', 'Once upon a time', '-n', 12, '--ctx', 64, '--temp', 0, '--json');
my $want = ids(dair(['run', $whole, @ask]));
like($want, qr/^\d+( \d+){11}$/, 'one file answers');
for my $how (['in RAM'], ['streamed', '--memory', '64M'], ['three slices', '--slices', 3, '--memory', '140M']) {
    my ($name, @o) = @$how;
    my $run = dair(['run', $first, @ask, @o]);
    is(ids($run), $want, "$name: the same tokens") or diag($run->{err});
    cmp_ok(figures($run)->{streamed_bytes}, '>', 0, "$name: it streams") if $name eq 'streamed';
}

# ---- shown as what it is
my ($one) = objects(dair(['inspect', $whole, '--json', '--tensors'])->{out});
my $show = dair(['inspect', $first, '--json', '--tensors']);
my ($set) = objects($show->{out});
is($set->{files}, 3, 'inspect: three files') or diag($show->{err});
cmp_ok(abs($set->{bytes} - $one->{bytes}), '<', 2000, 'inspect: as long as the one');
is_deeply([map { $_->{file} } @{$set->{tensors}}], [(0) x 3, (1) x 4, (2) x (@{$one->{tensors}} - 7)],
    'inspect: where each tensor is');
like(dair(['inspect', $first])->{out}, qr/ in 3 files$/m, 'inspect says so');
my $later = dair(['inspect', $first =~ s/00001-of/00002-of/r]);
is($later->{status}, 4, 'inspect of the second file: exit status 4');
like($later->{out}, qr/^runs here no$/m, 'it is told of');
like($later->{err}, qr/\Adair inspect: .* is file 2 of a set of 3; open the first one.*\n\z/, 'and why, once');
my $plan = dair(['plan', $first, '--memory', '64M']);
like($plan->{out} . $plan->{err}, qr/ in 3 files$/m, 'plan too');

my $run = dair(['run', $second, @ask]);
is($run->{status}, 4, 'the second file is no model');
like($run->{err}, qr/file 2 of a set of 3; open the first one/, 'and the sentence says which is');
rename $third, "$third.away" or die $!;
$run = dair(['run', $first, @ask]);
is($run->{status}, 1, 'a file is missing');
like($run->{err}, qr/file 3 of 3, part-00003-of-00003\.gguf: cannot open/, 'and is named');
rename "$third.away", $third or die $!;

# ---- headers that are small by themselves, and holes in the file
for my $i (0 .. 3) {
    my @key = (['split.no', 4, pack 'V', $i], ['split.count', 4, pack 'V', 4]);
    my $head = join '', map { pack('Q</aV', $_->[0], $_->[1]) . $_->[2] } @key;
    my $hole = $i ? 100 << 20 : 0;
    $head .= pack('Q</aVQ<', 'hole', 8, $hole) if $i;
    my $name = sprintf "$dir/holes-%05d-of-00004.gguf", $i + 1;
    write_file($name, pack('a4VQ<Q<', 'GGUF', 3, 0, $i ? 3 : 2) . $head);
    truncate $name, $hole + 4096 or die $!;
}
my $holes = dair(['inspect', "$dir/holes-00001-of-00004.gguf"]);
is($holes->{status}, 3, 'headers of 100 MB each: exit status 3');
like($holes->{err}, qr/the headers of its other files take more than \d+ bytes together$/m, 'and are not all kept');

# ---- a node's folder
rename $first, "$dir/models/z-00001-of-00003.gguf" or die $!;
rename $third, "$dir/models/z-00003-of-00003.gguf" or die $!;
rename $second, "$dir/models/z-00002-of-00003.gguf" or die $!;
write_file("$dir/models/a-00002-of-00002.gguf", 'GGUF');
my $port = do { IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 0, Listen => 1)->sockport };
$run = begin(['node', '--interface', 'lo', '--models', "$dir/models", '--state', "$dir/state", '--memory', '300M',
    '--threads', 1, '--port', $port, '--cluster-port', 0, '--discovery', 'off']);
my ($log, $until) = ('', time + 60);
while (time < $until) {
    $log = read_file($run->{err_file}->filename);
    last if $log =~ /z-0000\d-of|cannot|no \.gguf/;
    select undef, undef, undef, 0.2;
}
kill 'TERM', $run->{pid};
$run = finish($run, 20);
like($log, qr/z-00001-of-/, 'a node takes the first file of a set') or diag($log);
unlike($log, qr/models in/, 'and does not count the others');
done_testing();
