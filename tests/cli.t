#!/usr/bin/perl
# cli.t - what users and scripts see of `dair`: exit statuses, help, sentences, JSON.
#
# The program is $DAIR_BIN (or $DAIR, or the one built here). The model is the one inside it; where a
# build has none, $DAIR_TEST_MODEL or a small one of $DAIR_TESTDATA; else those tests are skipped.
use strict;
use warnings;
use File::Temp qw(tempdir);
use JSON::PP;
use POSIX qw(:sys_wait_h);
use Test::More;

my ($arch) = `uname -m` =~ /(\w+)/;
my $dair = $ENV{DAIR_BIN} || $ENV{DAIR} || "build/$arch/dair";
plan skip_all => "there is no $dair" unless -x $dair;
my $dir = tempdir(CLEANUP => 1);

# Runs dair WORDS with stdin from a string; returns exit status (or -signal), stdout, stderr.
sub dair {
    my ($words, $in) = @_;
    my ($out, $err) = ("$dir/out", "$dir/err");
    write_file("$dir/in", $in // '');
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN,  '<', "$dir/in" or die;
        open STDOUT, '>', $out      or die;
        open STDERR, '>', $err      or die;
        exec { $dair } $dair, @$words or POSIX::_exit(127);
    }
    waitpid $pid, 0;
    my $status = WIFSIGNALED($?) ? -WTERMSIG($?) : WEXITSTATUS($?);
    return ($status, read_file($out), read_file($err));
}

sub read_file { local (@ARGV, $/) = shift; my $t = <>; return $t // '' }
sub write_file { my ($f, $t) = @_; open my $h, '>', $f or die "$f: $!"; print $h $t; close $h }

# A refusal: this status, nothing on stdout, one sentence on stderr that matches.
sub refused {
    my ($words, $status, $like) = @_;
    my ($got, $out, $err) = dair($words);
    my $name = "dair @$words";
    is($got, $status, "$name: exit status $status") or diag($err);
    is($out, '', "$name: nothing on stdout");
    like($err, qr/\A[^\n]+\n\z/, "$name: one line on stderr");
    like($err, $like, "$name: says what");
}

# ---- help and version
my @verbs = qw(run inspect plan tokenize detokenize bench synth selftest);
my ($status, $out, $err) = dair(['--help']);
is($status, 0, 'help: exit status 0');
is($err, '', 'help: nothing on stderr');
like($out, qr/^  $_ +\S/m, "help lists $_") for @verbs;
unlike($out, qr/^  (chat|node|status|doctor|keygen|update|perplexity|render) /m, 'and nothing that is not there');
($status, $out, $err) = dair([]);
is($status, 2, 'no verb: exit status 2');
is($out, '', 'no verb: the help is on stderr');
($status, $out) = dair(['--version']);
is($status, 0, 'version: exit status 0');
like($out, qr/\Adair \S+ /, 'version');

for my $verb (@verbs) {
    ($status, $out, $err) = dair([$verb, '--help']);
    is($status, 0, "$verb --help: exit status 0");
    is($err, '', "$verb --help: nothing on stderr");
    like($out, qr/\Adair $verb .*\n\n.*\.\n/, "$verb --help: usage and a sentence");
    unlike($out, qr/--(workers|draft|grammar|typical|repeat-penalty|nodes|spec|stop|json-schema)\b/,
        "$verb --help: only what there is");
    my @wide = grep { length > 100 } split /\n/, $out;
    is("@wide", '', "$verb --help: at most 100 columns");
}

# ---- wrong usage
refused(['nonsense'],          2, qr/unknown verb "nonsense".*dair --help/);
refused([$_],                  2, qr/$_ \(.+\) is not in this version/) for qw(chat node status doctor);
refused(['run', '--bogus'],    2, qr/unknown option --bogus; see dair run --help/);
refused(['run', '--bogus=1'],  2, qr/unknown option --bogus;/);
refused(['run', "--$_", 'x'],  2, qr/--$_ \(.+\) is not in this version/)
  for qw(workers draft grammar typical repeat-penalty);
refused(['plan', '--nodes', '3'], 2, qr/--nodes \(.+\) is not in this version/);
refused(['run', '-p'],         2, qr/-p needs a value/);
refused(['run', '--json=yes'], 2, qr/--json takes no value/);
refused(['run', '-p', 'x', '-n', 'many'],        2, qr/-n takes a whole number/);
refused(['run', '-p', 'x', '--temp', 'hot'],     2, qr/--temp takes a number/);
refused(['run', '-p', 'x', '--top-p', '1.5'],    2, qr/--top-p takes 0 to 1/);
refused(['run', '-p', 'x', '--memory', 'lots'],  2, qr/--memory takes a size/);
refused(['run', '-p', 'x', '--memory=101%'],     2, qr/--memory takes a size/);
refused(['run', '-p', 'x', '--kv', 'q8_0'],      2, qr/--kv q8_0 is not in this version/);
refused(['run', '-p', 'x', '--kv', 'f64'],       2, qr/--kv takes f32\|f16/);
refused(['run', '-p', 'x', '--threads', '0'],    2, qr/--threads takes 1 to/);
refused(['run', 'a.gguf', 'b.gguf', '-p', 'x'],  2, qr/"b.gguf" is one word too many/);
refused(['synth'],                               2, qr/--shape.* is needed/);
refused(['synth', '--shape', 'no-such', '--type', 'q4_0', '-o', "$dir/x.gguf"], 2, qr/no-such/);

# ---- bad files
refused(['inspect', "$dir/absent.gguf"],        1, qr/absent\.gguf.*No such file/);
refused(['run', "$dir/absent.gguf", '-p', 'x'], 1, qr/absent\.gguf.*No such file/);
write_file("$dir/bad.gguf", "this is no model\n" x 100);
refused([$_, "$dir/bad.gguf", '-p', 'x'], 3, qr/bad\.gguf|magic|GGUF/) for qw(run tokenize detokenize);
refused([$_, "$dir/bad.gguf"], 3, qr/bad\.gguf|magic|GGUF/) for qw(inspect plan bench);
write_file("$dir/empty.gguf", '');
refused(['inspect', "$dir/empty.gguf"], 3, qr/./);

# ---- selftest
($status, $out) = dair(['selftest']);
is($status, 0, 'selftest: exit status 0');
like($out, qr/\Akernels \w+, digest [0-9a-f]{16}, ok\n\z/, 'selftest: variant and digest');
my ($digest) = $out =~ /digest (\w+)/;
{
    local $ENV{DAIR_CPU} = 'scalar';
    ($status, $out) = dair(['selftest', '--json']);
    my $o = decode_json($out);
    is($o->{kernels}, 'scalar', 'selftest: as a plainer CPU');
    is($o->{digest}, $digest, 'selftest: the same digest');
}

# ---- with a model
my @model;
($status) = dair(['tokenize', '-p', 'x']);
if ($status != 0) {
    my $data = $ENV{DAIR_TESTDATA} || '../shared/testdata';
    my ($found) = grep { defined && -r } $ENV{DAIR_TEST_MODEL}, "$data/C-models/stories260K-Q4_0.gguf";
    @model = ($found) if $found;
    if (!$found) {
        SKIP: { skip 'this build has no demo model, and no other was found', 1 }
        done_testing();
        exit;
    }
}

# One JSON object a line, or the test fails.
sub lines_ok {
    my ($text, $name) = @_;
    my @o = map { my $l = $_; eval { decode_json($l) } // {} } split /\n/, $text;
    ok(@o > 0 && !grep({ ref ne 'HASH' || !%$_ } @o), "$name: a JSON object a line") or diag($text);
    return @o;
}

my @greedy = ('-p', 'Once upon a time', '-n', 12, '--temp', 0);
my ($s1, $answer, $e1) = dair(['run', @model, @greedy]);
is($s1, 0, 'run: exit status 0') or diag($e1);
ok(length $answer, 'run: an answer');
like($e1, qr/^model .*^memory .*^forecast .*tokens\/s.*^answer .*tokens/ms, 'run: forecast, then what happened');
($status, $out, $err) = dair(['run', @model, @greedy, '--quiet']);
is($out, $answer, 'run: the same again');
is($err, '', 'run --quiet: nothing on stderr');
for my $how (['--threads', 1], ['--slices', 2], ['--slices=3:1'], ['--memory=64M'], ['--seed=7']) {
    ($status, $out, $err) = dair(['run', @model, @greedy, @$how]);
    is($status, 0, "run @$how: exit status 0") or diag($err);
    is($out, $answer, "run @$how: the same answer");
}

($status, $out, $err) = dair(['run', @model, @greedy, '--json']);
is($err, '', 'run --json: nothing on stderr');
my @o = lines_ok($out, 'run --json');
my $last = pop @o;
is(join('', map { $_->{text} } @o, exists $last->{text} ? $last : ()),
    do { my $t = $answer; utf8::decode($t); $t }, 'run --json: the texts are the answer');
ok(!grep({ !defined $_->{id} } @o), 'run --json: every token has an id');
is($last->{tokens}, scalar @o, 'run --json: tokens are counted');
ok(defined $last->{$_}, "run --json: $_")
  for qw(prompt_tokens tokens prefill_tps decode_tps peak_rss_bytes streamed_bytes pinned_bytes io_gbps
  accepted_per_step streamed_bytes_per_token sweep_bytes budget_bytes kv_bytes scratch_bytes ring_bytes
  forecast_tps disk_gbps_max is_direct end);
cmp_ok($last->{peak_rss_bytes}, '<=', $last->{budget_bytes}, 'run --json: within the budget');

write_file("$dir/prompt", 'Once upon a time');
($status, $out) = dair(['run', @model, '-f', "$dir/prompt", '-n', 12, '--temp', 0, '--quiet']);
is($out, $answer, 'run -f FILE');
($status, $out) = dair(['run', @model, '-f', '-', '-n', 12, '--temp', 0, '--quiet'], 'Once upon a time');
is($out, $answer, 'run -f -');
my ($sampled) = (dair(['run', @model, '-p', 'Once', '-n', 12, '--quiet']))[1];
is((dair(['run', @model, '-p', 'Once', '-n', 12, '--quiet']))[1], $sampled, 'run: the same seed, the same answer');

refused(['run', @model],                                2, qr/no prompt/);
refused(['run', @model, '-p', 'x', '-f', "$dir/prompt"], 2, qr/not both/);
refused(['run', @model, '-p', 'x', '--slices', '0'],    2, qr/--slices takes/);
refused(['run', @model, '-p', 'x', '--slices', 'a:b'],  2, qr/--slices takes/);
refused(['run', @model, '-p', 'x', '--ctx', '9999999'], 2, qr/--ctx 9999999 is more than/);
refused(['run', @model, '-p', 'word ' x 300, '--ctx', 64], 3, qr/prompt has \d+ tokens, .*64/);
refused(['run', @model, '-p', 'x', '--memory', '1M'],   4, qr/needs at least \d+ MiB.*--memory/);
refused(['run', @model, '-p', 'x', '--memory', '100T'], 4, qr/more than .* can be had/);

# The least that is named is enough, and is kept to.
my ($least) = (dair(['run', @model, '-p', 'x', '--memory', '1M']))[2] =~ /at least (\d+) MiB/;
($status, $out, $err) = dair(['run', @model, '-p', 'Hi', '-n', 4, '--memory', "${least}M", '--json']);
is($status, 0, "run --memory ${least}M: enough, as was said") or diag($err);
($last) = reverse lines_ok($out, "run --memory ${least}M");
cmp_ok($last->{peak_rss_bytes} // 9e99, '<=', $least << 20, "run --memory ${least}M: kept to");

# A reader that leaves, a disk that is full, a signal.
is(system("$dair run @model -p Once -n 200 --quiet 2>$dir/err | head -c 1 >/dev/null") & 127, 0, 'run | head: no signal');
is(read_file("$dir/err"), '', 'run | head: nothing to say');
SKIP: {
    skip 'there is no /dev/full', 1 unless -c '/dev/full';
    is(system("$dair run @model -p Once -n 8 --quiet >/dev/full 2>$dir/err") >> 8, 1, 'run: a full disk is a failure');
    like(read_file("$dir/err"), qr/cannot write/, 'run: and says so');
    is(system("$dair inspect @model >/dev/full 2>$dir/err") >> 8, 1, 'inspect: likewise');
}

# Ctrl-C in the middle of an answer: a pipe too small for it holds the program up until we have asked.
SKIP: {
    pipe my $r, my $w or die "pipe: $!";
    skip 'pipes cannot be made small here', 3 unless fcntl $w, 1031, 4096;    # F_SETPIPE_SZ
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        close $r;
        open STDOUT, '>&', $w or die;
        open STDERR, '>', "$dir/err" or die;
        exec { $dair } $dair, 'run', @model, '-p', 'Once', '-n', 0, '--json' or POSIX::_exit(127);
    }
    close $w;
    my $text = <$r>;
    kill 'INT', $pid;
    { local $/; $text .= <$r> }
    waitpid $pid, 0;
    is($? >> 8, 1, 'Ctrl-C: exit status 1');
    my ($last) = reverse lines_ok($text, 'Ctrl-C');
    is($last->{end}, 'stopped', 'Ctrl-C: the figures come all the same');
}

# ---- tokenize, detokenize
my $text = "Hello, world! \x{c3}\x{a9}";
my ($ids) = (dair(['tokenize', @model], $text))[1];
like($ids, qr/\A\d+( \d+)*\n\z/, 'tokenize: ids on a line');
is((dair(['detokenize', @model], $ids))[1], $text, 'detokenize: the text again');
is((dair(['tokenize', @model, '-p', $text]))[1], $ids, 'tokenize -p');
my ($o) = lines_ok((dair(['tokenize', @model, '--json'], $text))[1], 'tokenize --json');
is(join(' ', @{$o->{ids}}) . "\n", $ids, 'tokenize --json: the same ids');
($o) = lines_ok((dair(['detokenize', @model, '--json'], encode_json($o->{ids})))[1], 'detokenize --json');
is($o->{text}, "Hello, world! \x{e9}", 'detokenize --json: takes a JSON list, gives text');
is((dair(['tokenize', @model], ''))[0], 0, 'tokenize: nothing of nothing');
refused(['detokenize', @model, '-p', '1 x'],       3, qr/"x" is not a token id/);
refused(['detokenize', @model, '-p', '999999999'], 3, qr/no token 999999999/);

# ---- inspect, plan
($status, $out) = dair(['inspect', @model]);
is($status, 0, 'inspect: exit status 0');
like($out, qr/^runs here yes/m, 'inspect: it runs');
($o) = lines_ok((dair(['inspect', @model, '--json', '--tensors', '--meta']))[1], 'inspect --json');
ok($o->{runs} && @{$o->{tensors}} > 3 && @{$o->{meta}} > 3, 'inspect --json: tensors and keys');
($status, $out) = dair(['inspect', @model, '--memory', '1M']);
is($status, 0, 'inspect --memory 1M: exit status 0');
like($out, qr/^runs here no: .*needs at least/m, 'inspect --memory 1M: says why not');
($status, $out, $err) = dair(['plan', @model, '--slices', '2']);
is($status, 0, 'plan: exit status 0') or diag($err);
like($out, qr/^forecast .*^slice .*^ +1 .*^ +2 .*--memory/ms, 'plan: forecast, slices, budgets');
($o) = lines_ok((dair(['plan', @model, '--json', '--slices', '2']))[1], 'plan --json');
is(scalar @{$o->{placement}}, 2, 'plan --json: a part for each slice');
refused(['plan', @model, '--memory', '1M'], 4, qr/needs at least/);

done_testing();
