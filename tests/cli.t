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

# Runs dair WORDS with stdin from a string; returns exit status (or -signal), stdout, stderr. OPTIONS:
# bin => another dair, enter => what the child does first.
sub dair {
    my ($words, $in, %o) = @_;
    my $bin = $o{bin} // $dair;
    my ($out, $err) = ("$dir/out", "$dir/err");
    write_file("$dir/in", $in // '');
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDIN,  '<', "$dir/in" or die;
        open STDOUT, '>', $out      or die;
        open STDERR, '>', $err      or die;
        $o{enter}->() if $o{enter};
        exec { $bin } $bin, @$words or POSIX::_exit(127);
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
    my $name = substr "dair @$words", 0, 100;
    is($got, $status, "$name: exit status $status") or diag($err);
    is($out, '', "$name: nothing on stdout");
    like($err, qr/\A[^\n]+\n\z/, "$name: one line on stderr");
    like($err, $like, "$name: says what");
}

# ---- help and version
my @verbs = qw(node status run chat render inspect plan tokenize detokenize perplexity bench synth selftest
  doctor keygen);
my ($status, $out, $err) = dair(['--help']);
is($status, 0, 'help: exit status 0');
is($err, '', 'help: nothing on stderr');
like($out, qr/^  $_ +\S/m, "help lists $_") for @verbs;
unlike($out, qr/^  update /m, 'and nothing that is not there');
like($out, qr/^  version +\S.*--version/m, 'and the version');
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
    unlike($out, qr/--(nodes)\b/,
        "$verb --help: only what there is");
    my @wide = grep { length > 100 } split /\n/, $out;
    is("@wide", '', "$verb --help: at most 100 columns");
    is((dair(['help', $verb]))[1], $out, "help $verb: the same");
}

# ---- wrong usage
refused(['nonsense'],          2, qr/unknown verb "nonsense".*dair --help/);
refused([$_],                  2, qr/$_ \(.+\) is not in this version/) for qw(update);
refused(['help', 'nonsense'],  2, qr/unknown verb "nonsense"/);
refused(['help', 'update'],      2, qr/update \(.+\) is not in this version/);
refused(['run', '--bogus'],    2, qr/unknown option --bogus; see dair run --help/);
refused(['run', '--bogus=1'],  2, qr/unknown option --bogus;/);
refused(['plan', '--nodes', '3'], 2, qr/--nodes \(.+\) is not in this version/);
refused(['bench', '--nodes', '3'], 2, qr/--nodes \(measuring several machines\) is not in this version/);
refused(['run', $_, 'x'],      2, qr/$_ is an option of `dair render`; see dair run --help/) for qw(--template --tools --messages);
refused(['chat', $_],          2, qr/$_ \(.+\) is not in this version; see dair chat --help/) for qw(--workers --raw);
refused(['chat', '-p', 'a', '-f', 'b'],  2, qr/by -p or by -f, not both/);
refused(['chat', '--spec', 'draft'], 2, qr/--spec draft needs --draft MODEL/);
refused(['run', '-p', 'x', $_, 'y'], 2, qr/$_ is of use with --workers only/) for qw(--cluster-key --config --interface);
refused(['run', 'What are you?'], 1, qr/What are you\?: .*; a prompt is given with -p$/);
refused(['run', '-p'],         2, qr/-p needs a value/);
refused(['run', '--json=yes'], 2, qr/--json takes no value/);
refused(['run', '-p', 'x', '-n', 'many'],        2, qr/-n takes a whole number/);
refused(['run', '-p', 'x', '--temp', 'hot'],     2, qr/--temp takes a number/);
refused(['run', '-p', 'x', '--top-p', '1.5'],    2, qr/--top-p takes 0 to 1/);
refused(['run', '-p', 'x', '--typical', '-1'],   2, qr/--typical takes 0 to 1/);
refused(['run', '-p', 'x', '--repeat-penalty', '0'],     2, qr/--repeat-penalty takes 0.01 to 100/);
refused(['run', '-p', 'x', '--presence-penalty', 'nan'], 2, qr/--presence-penalty takes a number/);
refused(['run', '-p', 'x', '--frequency-penalty', '1e308'], 2, qr/--frequency-penalty takes -100/);
refused(['run', '-p', 'x', '--logit-bias', $_],  2, qr/--logit-bias takes ID:VALUE/) for qw(1 1: :1 a:1 1:b);
refused(['run', '-p', 'x', '--logit-bias', '1:1e308'], 2, qr/logit bias 1e\+308 is out of range/);
refused(['run', '-p', 'x', '--grammar', 'root ::= x'], 2, qr/--grammar: grammar 1:10: .* not defined/);
refused(['run', '-p', 'x', '--grammar', "$dir/none"],  1, qr/--grammar: .*none is neither a file that is there nor a grammar/);
refused(['run', '-p', 'x', '--json-schema', 'integer'], 1, qr/--json-schema: integer is neither a file that is there nor a schema/);
for (['--grammar', "root ::= 'a' b\n", 'grammar 1:'], ['--json-schema', '{"type":', 'schema: not JSON']) {
    my ($option, $text, $why) = @$_;
    write_file("$dir/held", $text);
    refused(['run', '-p', 'x', $option, "$dir/held"], 3, qr/held: $why/);
}
write_file("$dir/short", '');
refused(['perplexity', '-f', "$dir/short"], 3, qr/short has 0 tokens; two are the least/);
refused(['run', '-p', 'x', '--json-schema', '{"type":3}'], 2, qr/--json-schema: schema.*type/);
refused(['run', '-p', 'x', '--json-schema', '{}', '--grammar', 'root ::= "x"'], 2, qr/exclude each other/);
refused(['run', '-p', 'x', '--stop', ''],        2, qr/--stop takes a text that is not empty/);
refused(['run', '-p', 'x', ('--stop', 'a') x 17], 2, qr/--stop can be given 16 times/);
refused(['run', '-p', 'x', '--stop', 'a' x 1025], 2, qr/1024 bytes/);
refused(['run', '-p', 'x', '--memory', 'lots'],  2, qr/--memory takes a size/);
refused(['run', '-p', 'x', '--memory=101%'],     2, qr/--memory takes a size/);
refused(['run', '-p', 'x', '--memory', $_],      2, qr/--memory takes a size/) for '0', '0K', '0.5';
refused(['run', '-p', 'x', '--kv', 'f64'],       2, qr/--kv takes f32\|f16\|q8_0/);
refused(['run', '-p', 'x', '--threads', 'all'],  2, qr/--threads takes auto or a whole number/);
refused(['run', '-p', 'x', '--pin', 'maybe'],    2, qr/--pin takes auto\|on\|off/);
refused(['run', '-p', 'x', '--threads', '0'],    2, qr/--threads takes 1 to/);
refused(['run', 'a.gguf', 'b.gguf', '-p', 'x'],  2, qr/"b.gguf" is one word too many/);
refused(['synth'],                               2, qr/--shape.* is needed/);
refused(['synth', '--shape', 'llama-3.2-1b,layers=1', '--type', 'q4_0', '--quiet', '-o', "$dir/none/x.gguf"], 1,
    qr{cannot write \S+/none/x\.gguf: No such file});
refused(['synth', '--shape', 'no-such', '--type', 'q4_0', '-o', "$dir/x.gguf"], 2, qr/no-such/);
refused(['synth', '--shape', 'tiny', '--type', 'q4_0', '-o', $dir], 2, qr/is no file; give -o/);

# ---- a synth that is stopped leaves nothing behind: gigabytes take longer than it takes to see that they have begun
subtest 'synth, stopped' => sub {
    my $big = "$dir/big.gguf";
    for my $signal (qw(INT TERM)) {
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            open STDERR, '>', "$dir/err" or die;
            $SIG{INT} = 'DEFAULT';
            exec $dair, qw(synth --type f16 --shape), 'llama-3.1-8b,layers=8', '-o', $big or POSIX::_exit(127);
        }
        my $left = 300;
        select undef, undef, undef, 0.1 while !-e "$big.part" && $left--;
        my $began = -e "$big.part";
        kill $signal, $pid;
        waitpid $pid, 0;
        plan skip_all => 'the disk is too small' if !$began && read_file("$dir/err") =~ /GB left/;
        ok($began, "$signal: it had begun") or diag(read_file("$dir/err"));
        is($?, 1 << 8, "$signal: exit status 1");
        like(read_file("$dir/err"), qr/: stopped; [^\n]+\n\z/, "$signal: says so");
        ok(!-e $big && !-e "$big.part", "$signal: nothing is left");
    }
};

# ---- bad files
refused(['inspect', "$dir/absent.gguf"],        1, qr/absent\.gguf.*No such file/);
refused(['run', "$dir/absent.gguf", '-p', 'x'], 1, qr/absent\.gguf.*No such file/);
write_file("$dir/bad.gguf", "this is no model\n" x 100);
refused([$_, "$dir/bad.gguf", '-p', 'x'], 3, qr/bad\.gguf|magic|GGUF/) for qw(run tokenize detokenize);
refused([$_, "$dir/bad.gguf"], 3, qr/bad\.gguf|magic|GGUF/) for qw(inspect plan bench);
write_file("$dir/empty.gguf", '');
refused([$_, "$dir/empty.gguf"], 3, qr/the file is empty$/) for qw(inspect plan tokenize);
refused(['inspect', $dir], 3, qr/a folder/);
write_file("$dir/other.m", "\xcd\xab\x00\x0a" . "x" x 100);
refused([$_, "$dir/other.m"], 3, qr/other\.m: the header claims/) for qw(inspect plan tokenize);
refused(['plan', "$dir/absent.m"], 1, qr/No such file/);

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

my ($constant) = read_file('kernels/kernels.h') =~ /SELFTEST_DIGEST 0x([0-9a-f]{16})/;
is($digest, $constant, 'selftest: the digest of the contract') if $constant;
my $program = do { open my $h, '<:raw', $dair or die; local $/; <$h> };
SKIP: {
    # In a copy that expects another digest: the constant stands whole in x86 code.
    skip 'the constant stands in pieces in other code', 2 unless $arch eq 'x86_64';
    my ($was, $n) = (pack('H16', join '', reverse $digest =~ /../g), 0);
    (my $wrong = $program) =~ s/\Q$was\E/$n++; pack('Q<', 1)/ges;
    write_file("$dir/wrong", $wrong);
    chmod 0755, "$dir/wrong";
    my ($status, $out, $err) = dair(['selftest'], '', bin => "$dir/wrong");
    is($status, 1, "selftest: another digest than expected is a failure ($n places)");
    like("$out$err", qr/WRONG\n.*the digest should be 0{15}1\n\z/, 'selftest: and says so');
}

# A misspelt DAIR_CPU is not a wish to be passed over.
{
    local $ENV{DAIR_CPU} = 'avx1000';
    refused($_, 2, qr/DAIR_CPU knows scalar, avx2, .*neon.*, not "avx1000"/)
      for ['selftest'], ['--version'], ['run', '-p', 'x'], ['plan'], ['inspect'], ['bench'];
    $ENV{DAIR_CPU} = '';
    is((dair(['selftest']))[0], 0, 'DAIR_CPU without a value is not set');
}

# Prompts beside what the multipliers give, in the same run.
{
    my ($status, $out, $err) = dair(['bench', '--json', '--memory', '40M', '-n', 2]);
    is($status, 0, 'bench ends well') or diag $err;
    my @many = grep { ($_->{tokens_at_once} // 0) == 128 } map { decode_json($_) } split /\n/, $out;
    is(join(' ', map { "$_->{what}, $_->{unit}, $_->{limit_by}" } @many),
        join(' ', map { "matrix $_, Gop/s, multipliers alone" } qw(Q4_0 Q8_0 Q4_K)), 'bench: many tokens of each type');
    is(scalar(grep { $_->{value} > 0 && $_->{limit} > 0 } @many), 3, 'bench: both were measured');
}

# The program may be run, but not read: that is not a build without a model.
SKIP: {
    skip 'to lose a right wants root', 2 if $>;
    my $hidden = tempdir('cli-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    chmod 0711, $hidden;
    write_file("$hidden/dair", $program);
    chmod 0711, "$hidden/dair";
    ($status, $out, $err) = dair(['inspect'], '', bin => "$hidden/dair", enter => sub { POSIX::setuid(65534) });
    is($status, 1, 'a program that cannot read itself: exit status 1');
    like($err, qr/\Adair inspect: cannot read this program's own file .*Permission denied\n\z/, 'and says so');
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
like($e1, qr/^answer +12 tokens, cut off by -n,/m, 'run: and that -n cut it off');
like((dair(['run', @model, @greedy[0, 1, 4, 5], '--raw', '-n', 0, '--ctx', 16]))[2], qr/^answer +\d+ tokens, cut off: the context is full,/m,
    'run: or that the context is full');
($status, $out, $err) = dair(['run', @model, @greedy, '--quiet']);
is($out, $answer, 'run: the same again');
is($err, '', 'run --quiet: nothing on stderr');
for my $how (['--threads', 1], ['--threads', 'auto', '--pin', 'off'], ['--threads', 3, '--pin', 'on'], ['--slices', 2], ['--slices=3:1'], ['--memory=64M'], ['--seed=7']) {
    ($status, $out, $err) = dair(['run', @model, @greedy, @$how]);
    is($status, 0, "run @$how: exit status 0") or diag($err);
    is($out, $answer, "run @$how: the same answer");
}

($status, $out, $err) = dair(['run', @model, @greedy, '--json']);
like($err, qr/\A(?:note .*\n)*\z/, 'run --json: nothing on stderr, but for notes');
my @o = lines_ok($out, 'run --json');
my $last = pop @o;
is(join('', map { $_->{text} } @o, exists $last->{text} ? $last : ()),
    do { my $t = $answer; utf8::decode($t); $t }, 'run --json: the texts are the answer');
ok(!grep({ !defined $_->{id} } @o), 'run --json: every token has an id');
is($last->{tokens}, scalar @o, 'run --json: tokens are counted');
ok(defined $last->{$_}, "run --json: $_")
  for qw(prompt_tokens tokens prefill_tps decode_tps peak_rss_bytes streamed_bytes pinned_bytes io_gbps
  accepted_per_step streamed_bytes_per_token sweep_bytes budget_bytes kv_bytes scratch_bytes ring_bytes
  forecast_tps disk_gbps_max is_direct end slack_bytes compute_gbps memory_gbps threads decode_threads threads_tried pinned
  rest_s);
my @tried = map { $_->{threads} } @{$last->{threads_tried}};
is($tried[0], $last->{threads}, 'run --json: all threads were tried');
is_deeply(\@tried, [sort { $b <=> $a } @tried], 'and fewer');
ok((grep { $_ == $last->{decode_threads} } @tried), 'one of these numbers decodes');
like($e1, qr/^threads   \d+ of $last->{threads}: .*of weights/m, 'as is said before');
($status, $out, $err) = dair(['run', @model, @greedy, '--threads', 3, '--pin', 'on']);
like($err, qr/^threads   3, as asked: .* each kept on a core$/m, '--threads 3 --pin on: so it is');
cmp_ok($last->{peak_rss_bytes}, '<=', $last->{budget_bytes}, 'run --json: within the budget');

write_file("$dir/prompt", 'Once upon a time');
($status, $out) = dair(['run', @model, '-f', "$dir/prompt", '-n', 12, '--temp', 0, '--quiet']);
is($out, $answer, 'run -f FILE');
is((dair(['run', @model, '-f', '-', '-n', 12, '--temp', 0, '--quiet'], "Once upon a time$_"))[1], $out, 'run -f: without the newline at its end') for "\n", "\r\n";
($status, $out) = dair(['run', @model, '-f', '-', '-n', 12, '--temp', 0, '--quiet'], 'Once upon a time');
is($out, $answer, 'run -f -');
my ($sampled) = (dair(['run', @model, '-p', 'Once', '-n', 12, '--quiet']))[1];
is((dair(['run', @model, '-p', 'Once', '-n', 12, '--quiet']))[1], $sampled, 'run: the same seed, the same answer');

refused(['run', @model],                                2, qr/no prompt/);
refused(['run', @model, '-p', 'x', '-f', "$dir/prompt"], 2, qr/not both/);
refused(['run', @model, '-p', 'x', '--slices', '0'],    2, qr/--slices takes/);
refused(['run', @model, '-p', 'x', '--slices', 'a:b'],  2, qr/--slices takes/);
refused(['run', @model, '-p', 'x', '--ctx', '9999999'], 2, qr/--ctx 9999999 is more than/);
refused(['run', @model, '-p', 'word ' x 300, '--ctx', 64], 4, qr/prompt has \d+ tokens, .*64/);
write_file("$dir/long", 'word ' x 300);
refused(['run', @model, '-f', "$dir/long", '--ctx', 64], 4, qr/prompt has \d+ tokens, .*64/);

# What cannot fit is refused before it is made tokens of, which takes memory.
write_file("$dir/long", 'word ' x ((16 << 20) / 5));
for my $memory (['--memory', '64M'], []) {
    refused(['run', @model, '-f', "$dir/long", '--ctx', 64, @$memory], 4, qr/has at least \d+ tokens, .*64/);
}
refused(['run', @model, '-p', 'word ' x 20000, '--ctx', 64], 4, qr/has at least \d+ tokens, .*64/);
refused(['run', @model, '-p', 'x', '--memory', '1M'],   4, qr/needs at least \d+ MiB.*--memory/);
refused(['run', @model, '-p', 'x', '--memory', '100T'], 4, qr/more than .* can be had/);

# The least that is named is enough, and is kept to.
my ($least) = (dair(['run', @model, '-p', 'x', '--memory', '1M']))[2] =~ /at least (\d+) MiB/;
($status, $out, $err) = dair(['run', @model, '-p', 'Hi', '-n', 4, '--memory', "${least}M", '--json']);
is($status, 0, "run --memory ${least}M: enough, as was said") or diag($err);
($last) = reverse lines_ok($out, "run --memory ${least}M");
cmp_ok($last->{peak_rss_bytes} // 9e99, '<=', $least << 20, "run --memory ${least}M: kept to");

# What is kept back grows with the page tables.
my $ram = read_file('/proc/meminfo') =~ /^MemTotal: +(\d+)/m ? $1 << 10 : 0;
sub plan_of { my ($o) = lines_ok((dair(['plan', @model, '--json', @_]))[1], "plan @_"); return $o }
SKIP: {
    my $half = plan_of('--memory', '50%');
    cmp_ok($half->{budget_bytes}, '<=', $ram / 2, 'half of the memory');
    skip 'too little memory', 1 if $half->{budget_bytes} < 3 << 30;
    cmp_ok($half->{slack_bytes}, '>=', (16 << 20) + ($half->{budget_bytes} - (1 << 30)) / 512 - 1, 'room for page tables');
}

# In a memory group a share is a share of its limit.
SKIP: {
    my ($at) = read_file('/proc/self/cgroup') =~ /^\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:(\S*)/m;
    my $v2 = !defined $at;
    ($at) = read_file('/proc/self/cgroup') =~ /^0::(\S*)/m if $v2;
    my $group = ($v2 ? '/sys/fs/cgroup' : '/sys/fs/cgroup/memory') . ($at // '') . "/dair-cli-$$";
    skip 'no memory group can be made here', 1 unless !$> && mkdir $group;
    my $put = sub { open my $h, '>', "$group/$_[0]" or return 0; print $h $_[1]; return close $h };
    my $ok = $put->($v2 ? 'memory.max' : 'memory.limit_in_bytes', 256 << 20);
    my ($status, $out) = dair(['plan', @model, '--json', '--memory', '50%'], '',
        enter => sub { $put->($v2 ? 'cgroup.procs' : 'tasks', $$) or POSIX::_exit(125) });
    for (my $n = 0; !rmdir $group && $n < 50; $n++) { select undef, undef, undef, 0.1 }
    skip 'the group takes no limit', 1 unless $ok && $status != 125;
    is(eval { decode_json($out)->{budget_bytes} }, 128 << 20, 'half of the limit of a memory group');
}

# The forecast's figures: the disk's by reads as long as those to come, computing's by the kernel itself.
{
    my $o = plan_of('--memory', "${least}M");
    my $each = $o->{sweep_streamed_bytes} / ($o->{streamed_tiles} || 1);
    my $chunk = int($each / 4096) * 4096 || 4096;
    is($o->{disk_chunk_bytes}, $chunk, 'forecast: the disk is read in pieces of a tile');
    local $ENV{DAIR_CPU} = 'scalar';
    my $slow = plan_of();
    cmp_ok($slow->{compute_gbps}, '<', 0.8 * $slow->{memory_gbps}, 'forecast: plain C computes slower than memory reads');
    is($slow->{limited_by}, 'compute', 'forecast: and that limits it');
    like((dair(['plan', @model]))[1], qr/^forecast .*, limited by computing /m, 'forecast: in words too');
}

# A reader that leaves, a disk that is full, a signal.
is(system("$dair run @model -p Once -n 200 --quiet 2>$dir/err | head -c 1 >/dev/null") & 127, 0, 'run | head: no signal');
is(read_file("$dir/err"), '', 'run | head: nothing to say');
SKIP: {
    skip 'there is no /dev/full', 1 unless -c '/dev/full';
    is(system("$dair run @model -p Once -n 8 --quiet >/dev/full 2>$dir/err") >> 8, 1, 'run: a full disk is a failure');
    like(read_file("$dir/err"), qr/cannot write/, 'run: and says so');
    is(system("$dair inspect @model >/dev/full 2>$dir/err") >> 8, 1, 'inspect: likewise');
}
for ("run @model -p Once -n 8 --quiet", "inspect @model", 'keygen', 'version') {
    is(system("$dair $_ >&- 2>$dir/err") >> 8, 1, "$_: and so is none");
    like(read_file("$dir/err"), qr/cannot write/, 'which is said');
}
is(system("$dair inspect @model 2>&- >/dev/null") >> 8, 0, 'nobody need listen to what is said beside');

# Ctrl-C in the middle of an answer: a pipe too small for it holds the program up until we have asked.
SKIP: {
    pipe my $r, my $w or die "pipe: $!";
    skip 'pipes cannot be made small here', 3 unless fcntl $w, 1031, 4096;    # F_SETPIPE_SZ
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        close $r;
        open STDOUT, '>&', $w or die;
        open STDERR, '>', "$dir/err" or die;
        my @long = ('--grammar', 'root ::= [a-z ]{300}');    # it is not to end by itself
        exec { $dair } $dair, 'run', @model, '-p', 'Once', '-n', 0, '--json', @long or POSIX::_exit(127);
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
refused(['detokenize', @model, '-p', 'x 1'],       3, qr/"x" is not a token id/);
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
for my $slices ('3:1', '7:1', '5:1:1', '4') {
    my $o = plan_of('--slices', $slices);
    is($o->{budgets}[-1]{streamed_bytes}, 0, "plan --slices $slices: the last budget holds everything");
}

# A vocabulary that wants EOS behind a text: not behind a prompt, which the model is to go on with.
SKIP: {
    my $file = @model ? read_file($model[0]) : $program;
    $file = substr $file, index $file, "GGUF\3\0\0\0" if !@model;
    my $type = pack 'L<', 7;    # the key says of EOS, and by yes, what it said of BOS
    skip 'the vocabulary does not say whether it wants BOS', 2
      unless $file =~ s/tokenizer\.ggml\.add_\Kbos_token\Q$type\E./eos_token$type\x01/s;
    write_file("$dir/eos.gguf", $file);
    my $ids = sub { return scalar split ' ', (dair(['tokenize', "$dir/eos.gguf", '-p', 'Once', @_]))[1] };
    my ($status, $out, $err) = dair(['run', "$dir/eos.gguf", '--raw', '-p', 'Once', '-n', 1, '--json']);
    my ($last) = reverse lines_ok($out, 'run --raw, a vocabulary with EOS');
    my ($plain, $both) = ($ids->(), $ids->('--bos'));
    cmp_ok($both, '>', $plain, 'tokenize --bos: with EOS where the vocabulary wants it');
    is($last->{prompt_tokens}, $both - 1, 'run --raw: all of that but EOS') or diag($err);
}

# ---- how well a text is foretold, and guessing ahead
write_file("$dir/text", 'Once upon a time there was a node. Once upon a time there was a node.');
($status, $out) = dair(['perplexity', '-f', "$dir/text", '--ctx', 16, '--json']);
is($status, 0, 'perplexity: exit status 0');
my $ppl = eval { JSON::PP->new->decode($out) } // {};
cmp_ok($ppl->{tokens} // 0, '>', 16, 'perplexity: more than a window');
cmp_ok(abs(log($ppl->{perplexity} // 1) - ($ppl->{nll} // 9)), '<', 1e-4, 'perplexity: exp of nll');
cmp_ok($ppl->{nll_error} // 0, '>', 0, 'perplexity: has an error');
my @nll = map { (eval { JSON::PP->new->decode((dair(['perplexity', '-f', "$dir/text", '--json', @$_]))[1]) } // {})->{nll} }
  [], ['--memory', '7M'], ['--threads', 1];
ok($nll[0] && $nll[0] == $nll[1] && $nll[0] == $nll[2], 'perplexity: the same streamed, and with one thread') or diag("@nll");
($status, $out) = dair(['perplexity', '-f', "$dir/text", '--json', '--kv', 'q8_0']);
my $q8 = eval { JSON::PP->new->decode($out) } // {};
ok($status == 0 && $q8->{nll} && $q8->{nll} != $nll[0], 'perplexity: also with a context kept in q8_0') or diag($out);
write_file("$dir/long", 'a' x (1 << 20));
refused(['perplexity', '-f', "$dir/long", '--memory', '40M'], 4, qr/text of \d+ bytes.*more --memory or a shorter text/);

# ---- models that were made for a context of hardly anything
subtest 'short contexts' => sub {
    my $tiny = "$dir/tiny.gguf";
    my ($status, undef, $err) = dair(['synth', '--quiet', '--shape', 'tiny', '--type', 'q4_0', '-o', $tiny]);
    is($status, 0, 'synth') or diag($err);
    my $file = read_file($tiny);
    my $key = 'llama.context_length';
    my $at = index($file, $key) + length($key) + 4;
    for my $ctx (1, 2, 3) {
        substr($file, $at, 4) = pack 'L<', $ctx;
        write_file($tiny, $file);
        refused(['bench', $tiny], 4, qr/a context of $ctx.*another model/);
        for my $words (['perplexity', $tiny, '-f', "$dir/text", '--json'], ['plan', $tiny], ['run', $tiny, '-p', 'a', '--raw', '--quiet']) {
            ($status, $out, $err) = dair($words, '', enter => sub { alarm 60 });
            my $want = $words->[0] eq 'plan' || $words->[0] eq 'perplexity' && $ctx > 1 || $ctx > 2 ? 0 : 4;
            is($status, $want, "dair $words->[0], context of $ctx: exit status $want") or diag($err);
        }
    }
};

# ---- what is wrong here
my $cut = "$dir/cut.gguf";
write_file($cut, substr(@model ? read_file($model[0]) : 'GGUF', 0, 100));
($status, $out) = dair(['doctor', @model, '--json']);
my %seen = map { my $o = eval { decode_json($_) } // {}; ($o->{what} // '') => $o } split /\n/, $out;
ok($seen{$_} && length $seen{$_}{text}, "doctor looks at $_")
  for qw(cpu threads memory pages clock port mdns key model disk);
my @ill = grep { !$_->{ok} } values %seen;
is($status ? 1 : 0, @ill ? 1 : 0, 'doctor: its exit status says whether anything is wrong');
is(scalar(grep { !$_->{remedy} } @ill), 0, 'doctor: each with a remedy');
ok($seen{model}{ok} && $seen{disk}{text} =~ /B\/s/, 'doctor: the model, and its disk measured') or diag($out);
write_file("$dir/odd.conf", "port = 9\nports = 1\n# fine\nkv = q5\nno setting\n\e[31m = 1\n" . join '', map { "x$_ = 1\n" } 1 .. 20);
($status, $out) = dair(['doctor', @model, '--config', "$dir/odd.conf"]);
is($status, 1, 'doctor: settings that are ignored are wrong');
like($out, qr/^config +WRONG \S*odd.conf:2: ports is not a known key, ignored; \S/m, 'doctor: the line, why, and what helps') or diag($out);
like($out, qr/^config +WRONG \S*odd.conf:4: kv takes .*; the default is used; \S/m, 'doctor: a bad value too');
like($out, qr/^config +WRONG \S*odd.conf:5: .*not key = value/m, 'doctor: and what is no setting');
unlike($out, qr/\e/, 'doctor: nothing of a file steers the terminal');
is(scalar(() = $out =~ /^config +WRONG/mg), 17, 'doctor: sixteen of them, and a last one');
like($out, qr/^config +WRONG 8 more warnings are not shown; /m, 'doctor: which counts the rest');
for ([1], [16], [17, '1 more warning is not shown'], [18, '2 more warnings are not shown'], [500, '484 more warnings are not shown']) {
    my ($n, $more) = @$_;
    # What was set before counts all the same, and may be wrong as well: a line that is warned of twice.
    for my $lines (['unknown', map { "x$_ = 1\n" } 1 .. $n], ['set again', "port = 9\n" x ($n + 1)], ['twice a line', "kv = f16\n", "kv = q5\n" x ($n / 2), "x = 1\n" x ($n % 2)]) {
        my ($name, @line) = @$lines;
        write_file("$dir/many.conf", join '', @line);
        my @words = ('doctor', $cut, '--config', "$dir/many.conf");
        my $plain = (dair(\@words))[1];
        my @told  = $plain =~ /^config +WRONG ([^;]*);/mg;
        is(scalar @told, $more ? 17 : $n, "doctor: $n warnings, $name: so many lines of it") or diag($plain);
        is($told[16], $more, 'doctor: and how many more');
        my @object = grep { $_->{what} eq 'config' } map { decode_json($_) } split /\n/, (dair([@words, '--json']))[1];
        is_deeply([map { $_->{text} =~ s/;.*//r } @object], \@told, 'doctor: with --json the same');
    }
}
($status, $out) = dair(['doctor', $cut]);
is($status, 1, 'doctor: a bad file is wrong');
like($out, qr/^model +WRONG .*; .*inspect/m, 'doctor: and says what to do');
refused(['perplexity'], 2, qr/-f FILE/);
refused(['run', '-p', 'x', '--spec', 'draft'], 2, qr/--draft MODEL/);
refused(['run', '-p', 'x', '--spec', $_, '--draft', "$dir/absent"], 2, qr/--spec $_ has no use for --draft/) for qw(ngram off);
refused(['chat', '--spec', 'ngram', '--draft', "$dir/absent"], 2, qr/--spec ngram has no use for --draft/);
refused(['run', '-p', 'x', '--draft', "$dir/absent"], 1, qr/absent.*No such file/);

done_testing();
