#!/usr/bin/perl
# budget.t - the memory budget is kept: in a memory group with that very limit a model larger than it
# gives the same tokens, never touches the limit, and uses what it may. Without --memory the group's
# limit is noticed. Wants root and a memory group of either version.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use Test::More;

use constant MIB => 1 << 20;
plan skip_all => 'a sanitizer takes memory of its own' if is_sanitized();
plan skip_all => 'memory groups want root' if $>;

# A group of our own below the one we are in, or as near to it as the kernel allows.
my ($group, $is_v2);

sub put { my ($name, $value) = @_; open my $h, '>', "$group/$name" or return 0; print $h $value; return close $h }
sub get { my ($number) = read_file("$group/$_[0]") =~ /(\d+)/; return $number }

sub make_group {
    my @mounts = map { (split ' ')[1, 2, 3] ? [(split ' ')[1, 2, 3]] : () } split /\n/, read_file('/proc/self/mounts');
    for my $m (@mounts) {
        my ($at, $type, $options) = @$m;
        $is_v2 = $type eq 'cgroup2';
        next unless $is_v2 || $type eq 'cgroup' && $options =~ /(^|,)memory(,|$)/;
        my $pattern = $is_v2 ? qr/^0::(\S*)/m : qr/^\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:(\S*)/m;
        my ($path) = read_file('/proc/self/cgroup') =~ $pattern or next;
        for (; ; $path =~ s{/[^/]*\z}{}) {
            $path =~ s{/\z}{};
            $group = "$at$path/dair-test-$$";
            if (mkdir $group) {
                return 1 if -e "$group/" . ($is_v2 ? 'memory.max' : 'memory.limit_in_bytes');
                rmdir $group;
            }
            last if $path eq '';
        }
    }
    undef $group;
    return 0;
}

# A group lives on for a moment after its last process: asked until it goes.
END {
    end_all();
    for (my $n = 0; $group && !rmdir $group && $n < 50; $n++) { select undef, undef, undef, 0.1 }
}

plan skip_all => 'no memory group can be made here' unless make_group();

# Gives the group this limit, counters at zero; false where it does not take it.
sub limit {
    my ($bytes) = @_;
    if ($is_v2) {
        rmdir $group && mkdir $group or return 0;
        put('memory.swap.max', 0);
        return put('memory.max', $bytes);
    }
    put('memory.force_empty', 0);    # what an earlier run left in the cache
    my $ok = put('memory.limit_in_bytes', $bytes);
    return $ok && put('memory.max_usage_in_bytes', 0) && put('memory.failcnt', 0);
}
sub hits { return $is_v2 ? (read_file("$group/memory.events") =~ /^max (\d+)/m)[0] : get('memory.failcnt') }
sub peak { return get($is_v2 ? 'memory.peak' : 'memory.max_usage_in_bytes') }    # memory.peak: since 5.19

my $model = synth(scratch() . '/model.gguf', 'llama-3.2-1b,layers=4', 'q4_0');
my @answer = ('run', $model, '--raw', '-p', 'Once upon a time', '-n', 12, '--temp', 0, '--json');

# Pages of the model that are in the cache belong to whoever read them: away with them.
sub evict { system "dd of='$model' oflag=nocache conv=notrunc,fdatasync count=0 2>/dev/null" }

sub within {
    my @words = @_;
    evict();
    return dair([@answer, @words], enter => sub { put($is_v2 ? 'cgroup.procs' : 'tasks', $$) or POSIX::_exit(125) });
}

my $free = dair(\@answer);
my $want = ids($free);
is($free->{status}, 0, 'without a limit: exit status 0') or diag($free->{err});
like($want, qr/^\d+( \d+){11}$/, 'without a limit: 12 tokens');
my $sweep = figures($free)->{sweep_bytes};

for my $mib (100, 150, 220, 400) {
    my $l = $mib * MIB;
    ok(limit($l), "$mib MiB: the group takes its limit") or next;
    my $run = within('--memory', "${mib}M");
    my $f = figures($run);
    is($run->{status}, 0, "$mib MiB: exit status 0") or diag($run->{err}), next;
    is(ids($run), $want, "$mib MiB: the same tokens");
    is(hits(), 0, "$mib MiB: the limit was never hit");
    cmp_ok(peak() // 0, '<=', $l, "$mib MiB: the group's peak");
    cmp_ok($f->{peak_rss_bytes}, '<=', $l, "$mib MiB: the process's peak");
    is($f->{budget_bytes}, $l, "$mib MiB: is the budget");

    # Memory that may be used is used: at most a tile, alignment and the slack stay free.
    my $room = $l - $f->{program_bytes} - $f->{kv_bytes} - $f->{scratch_bytes} - $f->{ring_bytes};
    if ($f->{sweep_streamed_bytes}) {
        cmp_ok($f->{pinned_bytes}, '>=', $room - 16 * MIB, "$mib MiB: what is left holds weights");
    } else {
        cmp_ok($f->{pinned_bytes}, '>=', $sweep, "$mib MiB: every weight stays");
    }

    # Only what has no room is read, each once a token: of Q4_0 a weight is as long in memory as in the
    # file. Readers may be a ring further ahead at the end than they were at the first token.
    my $rest = $f->{pinned_bytes} < $sweep ? $sweep - $f->{pinned_bytes} : 0;
    my $most = 1.02 * $rest + $f->{ring_bytes} / 11;
    cmp_ok($f->{streamed_bytes_per_token}, '<=', $most, "$mib MiB: no byte is read that could have stayed");
    my $fewest = 0.9 * $rest - $f->{ring_bytes} / 11;
    cmp_ok($f->{streamed_bytes_per_token}, '>=', $fewest, "$mib MiB: nor is reading kept quiet about");
}

# The group's limit counts without being named.
my $mib = 300;
if (ok(limit($mib * MIB), "no --memory, $mib MiB: the group takes its limit")) {
    my $run = within();
    my $f = figures($run);
    is($run->{status}, 0, "no --memory, $mib MiB: exit status 0") or diag($run->{err});
    is(ids($run), $want, "no --memory, $mib MiB: the same tokens");
    is(hits(), 0, "no --memory, $mib MiB: the limit was never hit");
    cmp_ok($f->{budget_bytes} // 9e99, '<=', 0.86 * $mib * MIB, "no --memory, $mib MiB: the limit was noticed");
    cmp_ok($f->{budget_bytes} // 0, '>=', 0.75 * $mib * MIB, "no --memory, $mib MiB: and made use of");
}

# More than the group has is refused before it is tried, and too little is refused with numbers.
for my $case (
    ['1G',  qr/1\.00 GiB.*300 MiB/,                      'more than the group has'],
    ['20M', qr/at least \d+ MiB.*20\.0 MiB.*--memory/, 'too little'],
  ) {
    my ($memory, $like, $name) = @$case;
    my $run = within('--memory', $memory);
    is($run->{status}, 4, "$name: exit status 4");
    is($run->{out}, '', "$name: nothing on stdout");
    like($run->{err}, qr/\A[^\n]+\n\z/, "$name: one sentence");
    like($run->{err}, $like, "$name: with the numbers");
}
# A draft model that is never right: its memory goes to weights in the middle of the answer.
{
    $model = synth(scratch() . '/model.gguf', 'llama-3.2-1b,layers=8,vocab=1024', 'q4_0');
    my $draft = synth(scratch() . '/draft.gguf', 'llama-3.2-1b,layers=2,vocab=1024', 'q4_0', 7);
    my @longer = ('run', $model, '--raw', '-p', 'Once upon a time', '-n', 40, '--temp', 0, '--json', '--ctx', 256);
    my $text = ids(dair([@longer, '--spec', 'off']));
    for my $mib (140, 240) {
        my $l = $mib * MIB;
        ok(limit($l), "$mib MiB and a draft: the group takes its limit") or next;
        @answer = @longer;
        my ($run, $f);
        for (1 .. 8) {    # a machine that is busy when it is measured computes too slowly for a draft's memory to matter
            $run = within('--memory', "${mib}M", '--draft', $draft);
            $f = figures($run);
            last if ($f->{draft_keep} // 1) > 0;
        }
        is($run->{status}, 0, "$mib MiB and a draft: exit status 0") or diag($run->{err}), next;
        is(ids($run), $text, "$mib MiB and a draft: the same tokens");
        ok($f->{draft_given_up} && $f->{grown_bytes}, "$mib MiB and a draft: it is given up");
        is(hits(), 0, "$mib MiB and a draft: the limit was never hit");
        cmp_ok(peak() // 0, '<=', $l, "$mib MiB and a draft: the group's peak");
    }
}
done_testing();
