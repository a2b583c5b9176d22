#!/usr/bin/perl
# bench.pl: the figures that README quotes, each a ratio against something real in the same run.
#
# Models are synthesised into DAIR_BENCH_DIR (default build/bench, 6 GB). llama-bench and
# llama-completion (llama.cpp) are measured beside us when they are on the PATH, other programs that take
# llama-bench's options by BENCH_PEERS='NAME=COMMAND;NAME=COMMAND'; the streaming part
# needs root for a memory group and a disk throttle (cgroup v1 or v2). What cannot be measured is said.
# BENCH_PARTS=kernels,ram,store,stream,experts,throttle,guess,memory,grammar,gather,cluster chooses parts, BENCH_MODELS=REGEX
# models of `ram` and `memory`, BENCH_ROUNDS how often `ram` (answers four times that), `stream`, `guess` and `memory` take turns; the machine
# should be otherwise idle.
use strict;
use warnings;
use JSON::PP;
use File::Path 'make_path';
use File::Temp 'tempdir';
use List::Util qw(max min);

my $dair = $ENV{DAIR_BIN} || 'build/x86_64/dair';
my $dir = $ENV{DAIR_BENCH_DIR} || 'build/bench';
my %part = map { $_ => 1 } split /,/, $ENV{BENCH_PARTS} || 'kernels,ram,store,stream,experts,throttle,guess,memory,grammar,gather,cluster';
my $threads = $ENV{BENCH_THREADS} || 2;
my $rounds = $ENV{BENCH_ROUNDS} || 5;
my $build = $ENV{DAIR_BUILD} || 'build/x86_64';
my $GIB = 1 << 30;
make_path($dir);
$| = 1;

sub median { my @s = sort { $a <=> $b } @_; return @s ? ($s[@s / 2] + $s[$#s / 2]) / 2 : 0 }
sub first_line { my $s = `$_[0] 2>/dev/null`; return (split /\n/, $s)[0] // '' }
sub on_path { my $p = shift; return grep { -x "$_/$p" } split /:/, $ENV{PATH} }
sub row { printf "| %-44s | %14s | %-40s |\n", @_ }

# What a figure is to be, as words behind it. Wrong is what no machine may show, however slow: another text, a budget
# exceeded, a measurement that gave nothing; then this program fails.
my %goals = (held => 0, missed => 0, wrong => 0);
sub wrong { my $text = shift; $goals{wrong}++; return $text }
sub failed { row(shift, wrong('FAILED'), ''); return }
sub goal {
    my ($is, $how, $limit) = @_;
    my $verdict = ($how eq '<=' ? $is <= $limit : $is >= $limit) ? 'held' : 'missed';
    $goals{$verdict}++;
    return sprintf '; goal %s %.4g: %s', $how, $limit, $verdict;
}

sub model {
    my ($shape, $type) = @_;
    (my $name = "$shape-$type.gguf") =~ tr/,=/__/;
    my $file = "$dir/$name";
    -f $file or system($dair, 'synth', '--shape', $shape, '--type', $type, '-o', $file) == 0
        or die "cannot make $file\n";
    return $file;
}

# --- control groups: version 1 where its memory controller is mounted, else 2

my $v1 = -d '/sys/fs/cgroup/memory';
my @groups;

sub put { my ($f, $v) = @_; open my $h, '>', $f or return; print $h $v; return close $h }
sub get { my $f = shift; open my $h, '<', $f or return ''; local $/; my $s = <$h>; $s =~ s/\s+$//; return $s }

# The disk that holds $dir, as MAJOR:MINOR of the whole device.
sub disk {
    my $dev = (stat $dir)[0];
    my ($major, $minor) = ($dev >> 8 & 0xfff, $dev & 0xff | $dev >> 12 & 0xfff00);
    my $sys = readlink "/sys/dev/block/$major:$minor" or return;
    $sys = "/sys/dev/block/$sys";
    return -f "$sys/partition" ? get("$sys/../dev") : "$major:$minor";
}

sub group {
    my (%want) = @_;
    my $name = "dair-bench-$$-" . scalar @groups;
    my %g = $v1 ? (memory => "/sys/fs/cgroup/memory/$name", io => "/sys/fs/cgroup/blkio/$name")
                : (memory => "/sys/fs/cgroup/$name", io => "/sys/fs/cgroup/$name");
    delete $g{io} if $v1 && !$want{bps};
    for (values %g) { -d or mkdir $_ or return }
    push @groups, \%g;
    if ($v1) {
        put("$g{memory}/memory.limit_in_bytes", $want{memory}) or return;
        put("$g{io}/blkio.throttle.read_bps_device", disk() . " $want{bps}") or return if $want{bps};
    } else {
        put("$g{memory}/memory.max", $want{memory}) or return;
        put("$g{io}/io.max", disk() . " rbps=$want{bps}") or return if $want{bps};
    }
    return \%g;
}

sub peak {
    my $g = shift;
    return $v1 ? (get("$g->{memory}/memory.max_usage_in_bytes"), get("$g->{memory}/memory.failcnt"))
               : (get("$g->{memory}/memory.peak"), get("$g->{memory}/memory.events") =~ /^max (\d+)/m);
}

sub in_group {
    my ($g, @cmd) = @_;
    my %f = map { $_ => 1 } map { $v1 ? "$_/tasks" : "$_/cgroup.procs" } values %$g;
    return ('sh', '-c', 'for f in ' . join(' ', sort keys %f) . '; do echo $$ > $f; done; exec "$@"', 'sh', @cmd);
}

my %stopped;  # programs that stand still between their turns
$SIG{$_} = sub { exit 1 } for qw(INT TERM);
END {
    kill 'KILL', keys %stopped;
    for my $g (@groups) { rmdir $_ for values %$g }
}

# --- runs

sub dair_json {
    my @cmd = @_;
    open my $out, '-|', @cmd or return {};
    my ($last, $text) = ({}, '');
    while (<$out>) {
        $last = eval { decode_json($_) } || {};
        $text .= "$last->{id} " if defined $last->{id};
    }
    return close $out ? {%$last, ids => $text} : {failed => 1};
}

sub answer {
    my ($file, $n, @more) = @_;
    return ($dair, 'run', $file, '--raw', '-p', 'Once upon a time', '-n', $n, '--temp', 0,
            '--threads', $threads, '--ctx', 512, '--json', @more);
}

# The peers' own bench programs, "NAME=COMMAND;..": BENCH_PEERS, or llama.cpp's where it is on the PATH.
my @peers = map { my ($name, $cmd) = split /=/, $_, 2; [$name, split ' ', $cmd] }
    split /;/, $ENV{BENCH_PEERS} // (on_path('llama-bench') ? 'llama.cpp=llama-bench' : '');

# A peer's rate of n_new written tokens, in a memory group.
sub peer_rate {
    my ($peer, $file, $n_new, $g) = @_;
    my (undef, @words) = @$peer;
    my @cmd = ('timeout', 300, 'sh', '-c', 'exec "$@" 2>/dev/null', 'sh', @words, '-m', $file,
        '-t', $threads, '-p', 0, '-n', $n_new, '-r', 1, '-o', 'json');
    open my $out, '-|', in_group($g, @cmd) or return 0;
    local $/;
    my $j = eval { decode_json(<$out> // '') };
    close $out;
    return $j && @$j ? $j->[0]{avg_ts} : 0;
}

# Programs in turns: each loads its model once, says a line for every measurement, and stands still while the
# others measure, so that figures of one turn are a second apart: memory changes its speed from one second to the
# next, by more than programs differ. Takes name => [command]; gives name => its lines, as many for each program.
sub in_turns {
    my ($turns, %cmd) = @_;
    my (%run, %line);
    my $next = sub {
        my ($name, $like) = @_;
        my $r = $run{$name};
        my $got;
        eval {
            local $SIG{ALRM} = sub { die "late\n" };
            alarm 300;
            while (my $l = readline $r->{out}) { if ($l =~ $like) { $got = $1; last } }
            alarm 0;
        };
        kill 'STOP', $r->{pid};
        return $got;
    };
    my %like = map { $_ => $_ eq 'us' ? qr/^([\d.]+ [\d.]+ [\d.]+)$/ : qr/"avg_ts":\s*([\d.]+)/ } keys %cmd;
    for my $name (sort keys %cmd) {  # the first line is for warming up
        my $pid = open my $out, '-|', 'sh', '-c', 'exec "$@" 2>/dev/null', 'sh', @{$cmd{$name}} or next;
        $stopped{$pid} = 1;
        $run{$name} = {pid => $pid, out => $out};
        next if defined $next->($name, $like{$name});
        kill 'KILL', $pid;
        close $out;
        delete $run{$name};
        delete $stopped{$pid};
    }
    for (1 .. $turns) {
        for my $name (sort keys %run) {
            kill 'CONT', $run{$name}{pid};
            push @{$line{$name}}, $next->($name, $like{$name}) // 0;
        }
    }
    for my $r (values %run) {
        kill 'KILL', $r->{pid};
        close $r->{out};
        delete $stopped{$r->{pid}};
    }
    return %line;
}

# Ours and the peers' figures of so many turns: of prompts, or of answers.
sub turns {
    my ($turns, $file, $n_prompt, $n_new) = @_;
    my $all = $turns + 2;  # one to warm up, and nobody ends while others measure
    my @ours = $n_new ? (12, $n_new / 4, 4) : ($n_prompt, 1, 1);  # pieces: see bench_answer.c; as far from the beginning
    my %cmd = (us => ["$build/tests/bench_answer", $file, @ours, $all, $threads]);
    for my $peer (@peers) {
        my ($name, @words) = @$peer;
        $cmd{$name} = [@words, '-m', $file, '-t', $threads, '-r', 1, '-o', 'json',
            '-p', join(',', ($n_prompt) x ($n_prompt ? $all : 1)), '-n', join(',', ($n_new) x ($n_new ? $all : 1))];
    }
    my %line = in_turns($turns, %cmd);
    delete $line{us} if grep { !$_ } @{$line{us} // []};  # ours has to go through
    return %line;
}

# llama.cpp's decode rate in a memory group, by one of its ways to load; 0 when it is killed or gives nothing in time.
sub llama_limited {
    my ($g, $file, $n, @more) = @_;
    my @cmd = ('timeout', 120, 'llama-completion', '-m', $file, '-t', $threads, '-n', $n, '-no-cnv',
               '--no-warmup', '--temp', 0, '-c', 512, '--perf', '-p', 'Once upon', @more);
    open my $out, '-|', in_group($g, 'sh', '-c', 'exec "$@" 2>&1 </dev/null', 'sh', @cmd) or return 0;
    my $rate = 0;
    while (<$out>) { $rate = $1 if /\beval time.*?([\d.]+) tokens per second/ && !/prompt eval/ }
    close $out;
    return $rate;
}

# The disk's own limit, in the same group: the best of two and four readers.
sub raw_disk {
    my ($g, $file) = @_;
    my $best = 0;
    for my $readers (2, 4) {
        open my $out, '-|', in_group($g, "$build/tests/bench_disk", $file, 2, $readers) or return 0;
        my $rate = <$out>;
        close $out;
        $best = max($best, $rate || 0);
    }
    return $best;
}

sub evict { my $f = shift; system 'dd', "of=$f", 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none' }

# One figure of ours beside the peers', of the same turns: the median for each peer, and the least of those counts.
sub beside {
    my ($name, $limit, $us, %rate) = @_;
    return failed($name) unless $us;
    my (@others, $least);
    for my $peer (map { $_->[0] } @peers) {
        my $r = $rate{$peer} or next;
        next unless grep { $_ } @$r;
        my $ratio = median(map { $r->[$_] ? $us->[$_] / $r->[$_] : () } 0 .. $#$us);
        push @others, sprintf '%s %.1f', $peer, median(@$r);
        $least = $ratio if !defined $least || $ratio < $least;
    }
    row($name, sprintf('%.1f tokens/s', median(@$us)), !@peers ? 'no peer is here (BENCH_PEERS)' : !defined $least ? 'no peer gave a figure'
        : sprintf('%.2f x the better (%s)', $least, join ', ', @others) . goal($least, '>=', $limit));
}

sub ram {
    my $narrow = ($ENV{DAIR_CPU} // '') eq 'avx2' || get('/proc/cpuinfo') !~ /avx512/;
    for (['llama-3.2-1b', 'q4_0'], ['llama-3.2-1b', 'q8_0'], ['llama-3.2-1b', 'q4_k'], ['qwen3-30b-a3b,layers=12', 'q4_0']) {
        my ($shape, $type) = @$_;
        next if $ENV{BENCH_MODELS} && "$shape $type" !~ /$ENV{BENCH_MODELS}/;
        my $file = model($shape, $type);
        my %answer = turns(4 * $rounds, $file, 0, 32);
        my @us = map { [split] } @{$answer{us} // []};
        beside("$shape $type in RAM, decode, $threads threads", 1.05, @us ? [map { $_->[1] } @us] : undef, %answer);
        my @part = map { $_->[2] } @us;
        row('  beside a loop that only reads', sprintf('%.2f', median(@part)), sprintf('%.2f to %.2f', min(@part), max(@part))
            . ($shape !~ /a3b/ ? goal(median(@part), '>=', 0.93) : '')) if @part;
        my %prompt = turns($rounds, $file, 256, 0);
        @us = map { [split] } @{$prompt{us} // []};
        beside('  prompt of 256', $narrow ? 1 : 1.3, @us ? [map { $_->[0] } @us] : undef, %prompt);
    }
}

sub same_tokens {
    my ($file, $limited) = @_;
    my $free = dair_json(answer($file, scalar(split ' ', $limited)));
    return $free->{ids} eq $limited ? 'same tokens as unlimited' : wrong('TOKENS DIFFER');
}

sub report_memory {
    my ($r, $g, $budget) = @_;
    my ($peak, $fails) = peak($g);
    my $room = $budget - $r->{kv_bytes} - $r->{scratch_bytes} - $r->{ring_bytes} - (64 << 20);
    row('  peak of the memory group', sprintf('%.1f MiB', $peak / 1048576),
        sprintf('limit %.0f MiB, failcnt %d', $budget / 1048576, $fails) . ($fails || $peak > $budget ? wrong('; OVER IT') : ''));
    row('  pinned', sprintf('%.1f MiB', $r->{pinned_bytes} / 1048576),
        'budget - KV - scratch - ring - 64 MiB' . goal($r->{pinned_bytes} / 1048576, '>=', $room / 1048576));
}

# Each round stands between two looks at what the disk gives.
sub stream {
    my ($bps, $n) = @_;
    my $file = model('llama-3.1-8b', 'q4_0');
    my $g = group(memory => 2 * $GIB, bps => $bps);
    my $name = '8B q4_0 in 2 GiB' . ($bps ? ', disk at 400 MB/s' : '');
    return row($name, 'skipped', 'no right to make a control group (root)') unless $g;
    my ($r, @tps, @gbps, @raw, @share);
    my $look = $bps ? $bps / 1e9 : raw_disk($g, $file);
    for (1 .. ($bps ? 1 : $rounds)) {
        evict($file);
        $r = dair_json(in_group($g, answer($file, $n, '--memory', '2G')));
        return failed($name) if $r->{failed};
        my $after = $bps ? $look : raw_disk($g, $file);
        push @tps, $r->{decode_tps};
        push @gbps, $r->{io_gbps};
        push @raw, ($look + $after) / 2;
        push @share, $r->{io_gbps} / $raw[-1];
        $look = $after;
    }
    row("$name, decode", sprintf('%.3f tokens/s', median(@tps)), same_tokens($file, $r->{ids}));
    row('  disk', sprintf('%.3f GB/s', median(@gbps)), sprintf('%.3f (%.3f to %.3f) x %s (%.3f)', median(@share), min(@share), max(@share),
        $bps ? 'the throttle' : 'a raw huge-page reader', median(@raw)) . ($bps ? '' : goal(median(@share), '>=', 0.88)));
    report_memory($r, $g, 2 * $GIB);
    my $swept = $r->{sweep_bytes} - $r->{pinned_bytes};
    row('  streamed a token', sprintf('%.1f MB', $r->{streamed_bytes_per_token} / 1e6),
        sprintf('%.3f x (swept - pinned)', $r->{streamed_bytes_per_token} / $swept));
    return unless on_path('llama-completion');
    # Its ways to load: mapped, with and without re-laying, and past the page cache. The slow disk keeps
    # to the first, which the fast one has shown to be the best.
    my %way = (mapped => ['--no-repack'], 're-laid' => [], direct => ['--no-repack', '-lm', 'dio']);
    my ($best, $how) = (0, 'none');
    for my $way (sort { $b cmp $a } grep { !$bps || $_ eq 'mapped' } keys %way) {
        evict($file);
        my $rate = llama_limited($g, $file, $bps ? 2 : 5, @{$way{$way}});
        row("  llama.cpp in the same group, $way", $rate ? sprintf('%.3f tokens/s', $rate) : 'no token', '');
        ($best, $how) = ($rate, $way) if $rate > $best;
    }
    row('  beside the best of them', $how, $best ? sprintf('we are %.2f x', median(@tps) / $best) : '');
}

# Experts on demand, beside the peers in the same group (their commands say how they load; ik_llama.cpp: --defer-experts).
sub experts {
    my $file = model('qwen3-30b-a3b,layers=12', 'q4_0');
    my $name = '30B-A3B of 12 layers q4_0 in 2 GiB';
    my $g = group(memory => 2 * $GIB);
    return row($name, 'skipped', 'no right to make a control group (root)') unless $g;
    my $r = dair_json(in_group($g, answer($file, 64, '--memory', '2G')));
    return failed($name) if $r->{failed};
    row("$name, decode", sprintf('%.2f tokens/s', $r->{decode_tps}), same_tokens($file, $r->{ids}));
    my $hits = $r->{expert_hits} / ($r->{expert_hits} + $r->{expert_misses});
    row('  experts that were in memory', sprintf('%.3f', $hits), sprintf('room for %.3f of them', $r->{expert_hit_share})
        . goal($hits, '>=', $r->{expert_hit_share}));
    report_memory($r, $g, 2 * $GIB);
    for my $peer (@peers) {
        evict($file);
        my $rate = peer_rate($peer, $file, 4, $g);
        row("  $peer->[0] in the same group, 4 tokens", $rate ? sprintf('%.2f tokens/s', $rate) : 'no token', $rate
            ? sprintf('we are %.1f x', $r->{decode_tps} / $rate) . goal($r->{decode_tps} / $rate, '>=', 2) : 'killed, or nothing within 5 minutes');
    }
}

# Guessing ahead: a model that repeats itself streamed, and one that does not in RAM and streamed. Off and on take turns.
sub guess {
    my $file = "$dir/parrot.gguf";
    -f $file
        or system($dair, 'synth', '--shape', 'llama-3.1-8b,layers=6', '--type', 'q4_0', '-o', $file) == 0
        && system("$build/tests/bench_parrot", $file) == 0
        or return failed('a model that repeats itself');
    my @random = ('--temp', 1, '--top-k', 0);
    # Of the text that repeats itself the first 16 tokens are new, so each takes a sweep. In RAM two runs of the very same
    # steps differ by up to a tenth, as the memory's speed does: there more pairs are taken.
    for (['repeating itself, 0.3 of it in RAM', $file, 128, '--memory', '400M'],
         ['repeating itself in RAM', $file, 128],
         ['random text in RAM', model('llama-3.2-1b', 'q4_0'), 256, @random],
         ['random text, 0.3 of it in RAM', model('llama-3.2-1b', 'q4_0'), 64, @random, '--memory', '300M']) {
        my ($name, $model, $n, @more) = @$_;
        my (@off, @on, @ratio, %ids, $r);
        for (1 .. $rounds * ($name =~ /random text in RAM/ ? 3 : 1)) {
            for my $spec ($_ % 2 ? ('off', 'ngram') : ('ngram', 'off')) {  # whoever is second runs slower
                $r = dair_json(answer($model, $n, '--spec', $spec, @more));
                return failed($name) if $r->{failed};
                push @{$spec eq 'off' ? \@off : \@on}, $r->{decode_tps} // 0;
                $ids{$r->{ids} // ''} = 1;
            }
            push @ratio, $off[-1] ? $on[-1] / $off[-1] : 0;
        }
        row("$name, guessing ahead", sprintf('%.2f tokens/s', median(@on)), sprintf('%.2f (%.2f to %.2f) x off (%.2f), %.2f tokens a sweep, %s',
            median(@ratio), min(@ratio), max(@ratio), median(@off), $r->{accepted_per_step} // 0, keys %ids == 1 ? 'same tokens' : wrong('TOKENS DIFFER'))
              . ($name =~ /repeat/ ? goal($r->{accepted_per_step} // 0, '>=', 3) : goal(median(@ratio), '>=', 0.97)));
    }
}

# What was foretold beside what came, and what was allowed beside what was used, over budgets. The bounds: never
# a byte over; forecasts within 15 %; no budget more than 3 % slower than a smaller one. Memory and disk change their
# speed in seconds, so each round goes through all budgets, each run makes its own forecast just before, and medians
# count: of those ratios, and of a budget's speeds beside another's of the same round. A round goes there and back, and three
# times more through those where all is in RAM, which differ least, and answer longer. Where a router chooses an answer is
# longer, too, and each round begins another text: of the experts of 20 tokens, 0.82 to 0.90 are in memory as the text has
# it (Mixtral, 0.8 of it).
my @begin = ('Once upon a time', 'The weather today is', 'Dear friend', 'In the year 1900', 'How to bake bread');

sub memory_rounds {
    my ($file, $is_routed, @part) = @_;
    my @ram = grep { $_ >= 1 } @part;
    my %run = map { $_ => [] } @part;
    for my $round (0 .. $rounds - 1) {
        for my $part (@part, reverse(@part), (@ram, reverse(@ram)) x 3) {
            my $mib = int($part * (-s $file) / 1048576);
            my $n = $part >= 1 ? 128 : $is_routed ? 96 : 20;
            push @{$run{$part}}, dair_json(answer($file, $n, '--spec', 'off', '--memory', "${mib}M",
                '-p', $begin[$round % @begin]));
        }
    }
    return \%run;
}

# The least of a budget's speeds beside those of smaller ones.
sub beside_smaller {
    my ($speed, $part) = @_;
    my $n = @{$speed->{$part}};
    return min(map { my $less = $speed->{$_}; median(map { $speed->{$part}[$_] / $less->[$_ * @$less / $n] } 0 .. $n - 1) }
        grep { $_ < $part } keys %$speed) // 1;
}

sub memory {
    my $temp = tempdir('memory-XXXXXX', DIR => $dir, CLEANUP => 1);
    for (['llama-3.2-1b,layers=8', 'q4_0'], ['llama-3.2-1b,layers=8', 'q8_0'], ['llama-3.2-1b,layers=8', 'q4_k'],
         ['mixtral-8x7b,layers=1', 'q4_0']) {
        my ($shape, $type) = @$_;
        next if $ENV{BENCH_MODELS} && "$shape $type" !~ /$ENV{BENCH_MODELS}/;
        my $file = "$temp/model.gguf";
        system($dair, 'synth', '--quiet', '--shape', $shape, '--type', $type, '-o', $file) == 0 or die "cannot make $file\n";
        my @part = map { $_ / 10 } 3 .. 12;
        my $run = memory_rounds($file, scalar($shape =~ /mixtral/), @part);
        my (%bad, %speed);
        for my $part (@part) {
            my @r = @{$run->{$part}};
            if (grep { $_->{failed} } @r) { failed("$shape $type, $part of it"); $bad{failed}++; next }
            my @ratio = map { $_->{decode_tps} / $_->{forecast_tps} } @r;
            my $peak = max(map { $_->{peak_rss_bytes} } @r);
            $speed{$part} = [map { $_->{decode_tps} } @r];
            my $gain = beside_smaller(\%speed, $part);
            $bad{over}++ if grep { $_->{peak_rss_bytes} > $_->{budget_bytes} } @r;
            $bad{slower}++ if $gain < 0.97;
            $bad{'forecast off'}++ if abs(log median(@ratio)) > log 1.15;
            row("$shape $type, $part of it", sprintf('%.2f tokens/s', median(@{$speed{$part}})),
                sprintf('%.2f (%.2f to %.2f) x the forecast (%s), %.0f of %d MiB, >= %.2f x a smaller one', median(@ratio), min(@ratio),
                    max(@ratio), $r[-1]{limited_by}, $peak / 1048576, $r[-1]{budget_bytes} / 1048576, $gain));
        }
        wrong('') if $bad{over};
        $goals{missed} += $bad{$_} // 0 for 'slower', 'forecast off';
        $goals{held}++ unless %bad;
        row("$shape $type", %bad ? 'NOT' : 'yes', %bad ? join(', ', map { "$_ $bad{$_} times of " . @part } sort keys %bad)
            : @part . ' budgets kept, speed monotone, forecasts within 15 %');
        unlink $file;
    }
}

# What reads weights, without a model: sums over what it brings, beside the slower of reading and computing alone.
sub store {
    my $file = "$dir/store.tmp";
    for (['reading', 1], ['computing', 64]) {
        my ($limit, $passes) = @$_;
        my $text = `$build/tests/bench_store $file make=512 passes=$passes`;
        unlink $file;
        my ($sweep) = $text =~ /sweeps of ([\d.]+) s/;
        my ($ratio, $disk) = $text =~ /computing\) = ([\d.]+); disk at ([\d.]+) %/;
        if ($? || !$disk) { failed("store, $limit is the limit"); next }
        row("store, 512 MiB, $limit is the limit", sprintf('%.3f s a sweep', $sweep),
            sprintf('%.3f x the slower alone, disk at %.0f %% of raw', $ratio, $disk) . goal($ratio, '<=', 1.1));
    }
}

# Holding an answer to a schema, in the vocabulary of Llama 3: masks made by list, beside a look at every token.
sub grammar {
    my $file = model('llama-3.2-1b', 'q4_0');
    open my $out, '-|', "$build/tests/bench_grammar", $file or return failed('grammar');
    my $n = 0;
    while (<$out>) {
        my ($what, $first, $list, $scan) = /^(\w+).* first +([\d.]+), list +([\d.]+).* scan +([\d.]+) us/ or next;
        row("grammar, schema `$what`, a mask", sprintf('%.1f us', $list), sprintf('%.0f us by scanning; 64 candidates %.1f us', $scan, $first)
              . goal($scan / max($list, 0.1), '>=', 50));
        $n++;
    }
    failed('grammar') if !close $out || $n != 2;
}

# Nodes in namespaces of their own, their lines as fast as veth goes or 100 Mbit/s.
sub gather {
    local $ENV{DAIR_BUILD} = $ENV{DAIR_BUILD} || 'build/x86_64';
    open my $out, '-|', $^X, 'tests/bench_gather.pl' or return failed('gather over the network');
    my $n = 0;
    while (<$out>) {
        return row('gather over the network', 'skipped', $1) if /# SKIP (.*)/;
        my $g = eval { decode_json($_) } or next;
        my $line = $g->{nodes} == 2 ? 'veth' : '100 Mbit/s';
        my $part = $g->{part} . ($g->{rows} > 1 ? " x $g->{rows}" : '') . ' B';
        row("gather, $g->{nodes} nodes, $line, $part each", sprintf('%.0f us', $g->{us}),
            sprintf('%.2f x (alpha %.0f us + bytes / %.0f MB/s)', $g->{ratio}, $g->{alpha_us}, $g->{beta_mbps})
              . ($g->{rows} > 1 ? '' : goal($g->{ratio}, '<=', $g->{nodes} == 2 ? 1.5 : 1.3)));
        row('  CPU time of a node', sprintf('%.0f us', $g->{cpu_us}),
            sprintf('sealing and opening %.0f us: with these %.2f x', $g->{crypt_us}, $g->{ratio_sealed}));
        row('  the same with nothing but TCP', sprintf('%.0f us', $g->{bare_us}), sprintf('%.0f us of CPU time', $g->{bare_cpu_us}));
        $n++;
    }
    failed('gather over the network') if !close $out || !$n;
}

# Two nodes of one thread each, beside one node, the formula and distributed-llama.
sub cluster {
    my $file = model('llama-3.2-1b', 'q4_0');
    local $ENV{DAIR_BUILD} = $ENV{DAIR_BUILD} || 'build/x86_64';
    open my $out, '-|', $^X, 'tests/bench_cluster.pl', $file or return failed('two nodes');
    my $two;
    while (<$out>) {
        return row('two nodes', 'skipped', $1) if /# SKIP (.*)/;
        my $g = eval { decode_json($_) } or next;
        if ($g->{what} eq 'dllama') {
            row('distributed-llama, root + 1 worker, 1 thread each', $g->{skipped} ? 'skipped' : sprintf('%.2f tokens/s', $g->{two}),
                $g->{skipped} // sprintf('ours is %.2f x', $two / $g->{two}) . goal($two / $g->{two}, '>=', 1.3));
            next;
        }
        $two = $g->{two};
        row('1B Q4_0, 2 nodes of 1 thread, decode', sprintf('%.2f tokens/s', $two), sprintf('%.2f x one node (%.2f)', $two / $g->{one}, $g->{one}));
        row('  sent by a node for a token', sprintf('%.0f B', $g->{payload}), sprintf('%.4f x the formula (%.0f)', $g->{payload} / $g->{formula}, $g->{formula})
              . goal(abs($g->{payload} / $g->{formula} - 1), '<=', 0.01));
        row('  with TLS', sprintf('%.0f B', $g->{wire}), sprintf('%.4f x payload', $g->{wire} / $g->{payload}) . goal($g->{wire} / $g->{payload}, '<=', 1.02));
        row('  on the line', sprintf('%.0f B', $g->{line}), sprintf('%.4f x payload', $g->{line} / $g->{payload}) . goal($g->{line} / $g->{payload}, '<=', 1.08));
        row('  sealing and opening', sprintf('%.2f ms', $g->{crypt_ms}), sprintf('%.1f %% of the token', 100 * $g->{crypt_part}) . goal($g->{crypt_part}, '<=', 0.08));
    }
    failed('two nodes') if !close $out || !$two;
}

printf "machine: %s, %s; kernel %s\ncommit: %s\ncommand: make bench\n\n",
    get('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)$/m ? $1 : 'unknown', first_line('nproc') . ' cores',
    first_line('uname -r'), first_line('git log -1 --format="%h %cs"');
if ($part{kernels}) {
    system($dair, 'bench', '--roofline') == 0 or failed('roofline');
    print "\n";
    system("$build/tests/bench_kernels", 128, 3) == 0 or failed('kernels');
    print "\n";
}
row('what', 'measured', 'beside');
row('-' x 44, '-' x 14, '-' x 40);
ram() if $part{ram};
store() if $part{store};
stream(0, 12) if $part{stream};
experts() if $part{experts};
stream(400e6, 12) if $part{throttle};
guess() if $part{guess};
memory() if $part{memory};
grammar() if $part{grammar};
gather() if $part{gather};
cluster() if $part{cluster};
print "goals: $goals{held} held, $goals{missed} missed", $goals{wrong} ? "; $goals{wrong} times wrong" : '', "\n";
exit($goals{wrong} > 0);
