#!/usr/bin/perl
# node.t - the service as its user meets it: one node alone, its settings, its end, `dair status`; two
# nodes and a guest. Everything on the loopback.
use strict;
use warnings;
use File::Copy qw(copy);
use File::Path qw(make_path);
use FindBin;
use lib $FindBin::Bin;
use Dair;
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

delete $ENV{DAIR_CLUSTER_KEY};
my $dir = scratch();
my $demo = "$FindBin::Bin/../overlay/usr/share/dair/demo.gguf";
my $slow = is_sanitized() ? 4 : 1;
my $memory = is_sanitized() ? '512M' : '64M';
my %taken;

sub free_port {
    for (1 .. 200) {
        my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 0, Listen => 1) or next;
        my $port = $s->sockport;
        return $port if !$taken{$port}++;
    }
    BAIL_OUT('no free port');
}

# A node with these words more; its ports and state folder are its own.
my $n_node = 0;
sub node {
    my (@words) = @_;
    my ($port, $cluster) = (free_port(), free_port());
    my $run = begin(['node', '--interface', 'lo', '--state', "$dir/state" . ++$n_node, '--memory', $memory, '--threads', 1,
        '--port', $port, '--cluster-port', $cluster, @words]);
    @$run{qw(port cluster)} = ($port, $cluster);
    return $run;
}

sub log_of { return read_file($_[0]{err_file}->filename) }

# Until the node's log says so.
sub says {
    my ($run, $what, $seconds) = @_;
    for (my $until = time + ($seconds // 30) * $slow; time < $until; sleep 0.05) {
        return 1 if log_of($run) =~ $what;
        return log_of($run) =~ $what if !-d "/proc/$run->{pid}" || read_file("/proc/$run->{pid}/stat") =~ /\) Z/;
    }
    return 0;
}

# SIGTERM, and the exit status; how long it took.
sub leave {
    my ($run, $name) = @_;
    my $began = time;
    kill 'TERM', $run->{pid};
    finish($run, 20);
    is($run->{status}, 0, "$name: SIGTERM ends it with status 0") or diag($run->{err});
    cmp_ok(time - $began, '<', 12, "$name: within 12 s");
    like($run->{err}, qr/asked to stop.*\n(.*\n)*.*stopped$/m, "$name: and it says so");
}

sub end_one { my ($run) = @_; kill 'TERM', $run->{pid}; return finish($run, 20) }

# POST to a node: status and body.
sub post {
    my ($port, $path, $fields) = @_;
    my $body = JSON::PP->new->utf8->encode($fields);
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10) or return (0, "$!");
    print $s "POST $path HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ", length $body,
      "\r\n\r\n$body";
    local $/;
    my ($head, $rest) = split /\r\n\r\n/, <$s> // '', 2;
    return (($head // '') =~ /^HTTP\S+ (\d+)/ ? $1 : 0, $rest // '');
}

sub get {
    my ($port, $path) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10) or return (0, "$!");
    print $s "GET $path HTTP/1.0\r\nHost: x\r\n\r\n";
    local $/;
    my ($head, $rest) = split /\r\n\r\n/, <$s> // '', 2;
    return (($head // '') =~ /^HTTP\S+ (\d+)/ ? $1 : 0, $rest // '');
}

# The request is refused at once, with this status and reason.
sub refused {
    my ($port, $status, $why, $name) = @_;
    my $began = time;
    my ($got, $body) = post($port, '/v1/completions', {prompt => 'a'});
    is($got, $status, "$name: $status") or diag($body);
    like($body, $why, "$name: and why");
    unlike($body, qr{\Q$dir}, "$name: without a folder of ours");
    cmp_ok(time - $began, '<', 2 * $slow, "$name: at once");
}

# Nothing that anybody can ask for names a folder of ours, not even what the log keeps.
sub hides_folders {
    my ($run, $name, @told) = @_;
    my @seen = map { split /\n|(?<=",)/, (get($run->{port}, $_))[1] } '/', '/status.json', '/health', '/metrics';
    my @bad = grep { m{\Q$dir\E|a folder with a long name} } @seen, @told;
    is("@bad", '', "$name: no folder over HTTP");
    like("@seen", qr/"log":\[/, "$name: the log included");
}

sub completion {
    my ($port, $prompt) = @_;
    my ($status, $body) = post($port, '/v1/completions', {prompt => $prompt, max_tokens => 24, temperature => 0});
    my $answer = eval { JSON::PP->new->utf8->decode($body) } // {};
    return $answer->{choices}[0]{text} // "$status $body";
}

my $prompt = "<|im_start|>user\nWhat are you?<|im_end|>\n<|im_start|>assistant\n";
my $expected = dair(['run', '--raw', '-p', $prompt, '-n', 24, '--temp', 0, '--quiet'])->{out};
isnt($expected, '', 'dair run answers');

# ---- alone
my $alone = node();
ok(says($alone, qr/ALONE: this node serves .* at http:\S+/), 'without a key it is ALONE and says so') or diag(log_of($alone));
like(log_of($alone), qr/no cluster_key is set.*dair keygen/, 'and how to get one');
like(log_of($alone), qr/dair \S+: dair-\w+, \w+, .*cores?,.*memory\n.*budget \d+(\.\d)? MiB/, 'the banner');
is(completion($alone->{port}, $prompt), $expected, 'over HTTP the same text as from `dair run`');
hides_folders($alone, 'alone');
my @status = ('status', '--host', "127.0.0.1:$alone->{port}");
my $table = dair(\@status);
is($table->{status}, 0, 'status: exit status 0');
like($table->{out}, qr/^node +dair-\w+ at .*ALONE$/m, 'status: the node');
like($table->{out}, qr/^model +\S.*layers/m, 'status: the model');
like($table->{out}, qr/^dair-\w+ +\* .* ALONE +100 %  \[W+\] .* kept/m, 'status: a line with a bar');
my ($json) = objects(dair([@status, '--json'])->{out});
is($json->{node}{state}, 'ALONE', 'status --json: the state');
is(scalar @{$json->{cluster}{nodes} // []}, 1, 'status --json: one node');
is_deeply([sort keys %{$json->{net}{refused}}], [qw(displaced garbage other_version postponed timed_out wrong_key)], 'status --json: who was refused');
# `dair doctor` with the settings of a node that runs: its ports are its own.
sub doctor { my %seen; push @{$seen{$_->{what}}}, $_ for objects(dair(['doctor', @_, '--json'])->{out}); return \%seen }
write_file("$dir/ports.conf", "port = $alone->{port}\ncluster_port = $alone->{cluster}\n");
my @port = @{doctor('--config', "$dir/ports.conf")->{port} // []};
is(scalar(grep { $_->{ok} } @port), 2, 'doctor: the ports of a node that runs are well') or diag(map { $_->{text} } @port);
like($port[0]{text} // '', qr/\b$alone->{port}\b.*a dair node is running, dair-\w+, ALONE/, 'doctor: as a node is running there');
my $squatter = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 0, Listen => 1);
my $squatted = $squatter->sockport;
my $answers = fork // die "fork: $!";    # like a node, but without its name
if (!$answers) {
    alarm 60;
    while (my $s = $squatter->accept) {
        sysread $s, my $ask, 4096;
        print $s "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"node\":{}}";
    }
    POSIX::_exit(0);
}
write_file("$dir/taken.conf", "port = $squatted\ncluster_port = $squatted\nmodel = $dir/nowhere.gguf\n");
my $seen = doctor('--config', "$dir/taken.conf");
is(scalar(grep { !$_->{ok} && $_->{text} =~ /\b$squatted\b/ } @{$seen->{port} // []}), 2, 'doctor: what others have is not');
kill 'KILL', $answers;
waitpid $answers, 0;
ok(!$seen->{model}[0]{ok} && $seen->{model}[0]{text} =~ /nowhere\.gguf/, 'doctor: the model of the settings is looked at');
is($seen->{model}[0]{remedy}, 'check the path', 'doctor: and one that is not there has been named wrongly');
write_file("$dir/broken.gguf", "GGUF");
write_file("$dir/folder.conf", "port = " . free_port() . "\nmodels = $dir\nmodel = broken\n");
$seen = doctor('--config', "$dir/folder.conf");
like($seen->{port}[0]{text} // '', qr/is free/, 'doctor: a port that nobody has is free');
like($seen->{model}[0]{remedy} // '', qr/get the file anew/, 'doctor: a model by its name in the folder, and not whole');
my $second = dair(['node', '--interface', 'lo', '--state', "$dir/second", '--port', $alone->{port}, '--cluster-port', 0,
    '--memory', $memory]);
is($second->{status}, 1, 'a taken port: exit status 1');
like($second->{err}, qr/^dair node: .*\b$alone->{port}\b/m, 'and its number');
leave($alone, 'alone');
my $nobody = dair(\@status);
is($nobody->{status}, 1, 'status of nobody: exit status 1');
like($nobody->{err}, qr/\Adair status: nobody listens at 127\.0\.0\.1 port \d+; is `dair node` running.*\n\z/, 'in a sentence');
is(dair(['status', '--host', 'a/b'])->{status}, 2, 'status of nonsense: exit status 2');

# ---- settings
write_file("$dir/dair.txt", "\xef\xbb\xbf# mine\r\nlog = debug\r\nmemroy = 4G\r\nctx = many\r\nhostname = Kitchen\r\n"
      . "cluster_key = MISTYPED\r\napi_key = s3cret\r\nmodel = $dir/missing.gguf\r\n");
my $set = node('--config', "$dir/dair.txt");
ok(says($set, qr/: Kitchen,|: kitchen,/), 'a file full of mistakes does not keep it from starting') or diag(log_of($set));
my $log = log_of($set);
like($log, qr/config +warn +\S*dair\.txt:3: memroy is not a known key, ignored/, 'an unknown key, with its line');
like($log, qr/dair\.txt:4: ctx takes a whole number.*the default is used/, 'a bad value');
like($log, qr/dair\.txt:7: api_key comes with a later version, ignored: the HTTP API stays open/, "a later version's");
unlike($log, qr/s3cret|MISTYPED/, 'no secrets in the log');
like($log, qr/error.*cluster_key|error.*key.*works alone/, 'a mistyped key is named');
like($log, qr{\Q$dir\E/missing\.gguf.*without a model}, 'so is a model that is not there');
ok(says($set, qr/HTTP on port/), 'the page is there');
hides_folders($set, 'a model that is not there');
leave($set, 'settings');

# ---- what is wrong on the command line ends it
for ([['--port', 'x'], 2, qr/port takes a whole number/], [['--bogus', 1], 2, qr/unknown option --bogus/],
    [['--config', "$dir/none"], 1, qr/none: cannot open the config file/], [['--cluster_key', 'ABC'], 2, qr/key/],
    [["$dir/none.gguf"], 1, qr/none\.gguf/], [['--memory', '900T'], 4, qr/more than the/],
    [['--api-key', 'x'], 2, qr/api_key \(.+\) is not in this version; .*API stays open/], [['--leds', 'on'], 2, qr/leds \(.+\) is not in/],
    [['--threads', 0], 2, qr/threads takes auto or a whole number from 1/], [['--interface', 'nope'], 2, qr/no network interface called nope; /],
    [['--peers', 'a:b'], 2, qr/HOST:PORT, .* not "a:b"/], [['--models', "$dir/none"], 1, qr/models folder/]) {
    my ($words, $status, $like) = @$_;
    my $run = dair(['node', '--state', "$dir/bad", '--port', free_port(), '--cluster-port', 0, @$words], seconds => 20);
    is($run->{status}, $status, "node @$words: exit status $status") or diag($run->{err});
    my ($last) = $run->{err} =~ /([^\n]*)\n\z/;
    like($last // '', qr/^dair node: .*$like/, "node @$words: the last line says why");
}

# ---- the page of one interface is also heard on this machine itself
SKIP: {
    my ($other) = grep { $_ ne 'lo' && read_file("/sys/class/net/$_/operstate") =~ /up/ } map { m{([^/]+)\z} } glob '/sys/class/net/*';
    skip 'no interface but lo', 2 if !$other;
    my $there = node('--interface', $other);
    ok(says($there, qr/ALONE: this node serves/), "--interface $other: it serves") or diag(log_of($there));
    is(dair(['status', '--host', "127.0.0.1:$there->{port}"])->{status}, 0, 'and `dair status` reaches it by the loopback');
    end_one($there);
}

# ---- too little memory even for a part: the command line ends; the number that is named is enough
synth("$dir/small.gguf", 'tiny,layers=16', 'q8_0');
chomp(my $small_key = dair(['keygen'])->{out} =~ s/\n.*//sr);
my %least;
for my $key (undef, $small_key) {
    my $kind = $key ? 'with a key' : 'alone';
    my $run = dair(['node', "$dir/small.gguf", '--memory', '1M', '--state', "$dir/none", '--port', free_port(), '--cluster-port', 0],
        seconds => 20, enter => sub { $ENV{DAIR_CLUSTER_KEY} = $key // '' });
    is($run->{status}, 4, "1 MiB, $kind: exit status 4") or diag($run->{err});
    ($least{$kind}) = $run->{err} =~ /^dair node: .*needs at least (\d+) MiB .*the memory budget is 1\.00 MiB; give more --memory$/m;
    ok($least{$kind}, "1 MiB, $kind: and what is the least") or diag($run->{err});
}
# Another process may be a page larger, which is a MiB where the sum was just below one.
my $most = $least{alone} + 1;
my $enough = node("$dir/small.gguf", '--memory', "${most}M");
ok(says($enough, qr/ALONE: this node serves/), "alone, $most MiB are enough") or diag(log_of($enough));
leave($enough, 'the least');

# ---- a weight that is no number: who asks is told the file, and not where it lies
my ($scale) = map { $_->{offset} } grep { $_->{name} eq 'blk.3.ffn_down.weight' }
  map { @{$_->{tensors}} } objects(dair(['inspect', "$dir/small.gguf", '--json', '--tensors'])->{out});
my $bytes = read_file("$dir/small.gguf");
substr($bytes, $scale, 2) = pack 'v', 0x7c00;
my $far = "$dir/" . join '/', ('a folder with a long name ' x 4) x 4;    # the sentence cannot hold all of it
make_path($far);
for my $path ("$dir/wrong.gguf", "$far/wrong.gguf") {
    write_file($path, $bytes);
    my $wrong = node($path);
    ok(says($wrong, qr/does not take part any more: .*blk\.3\.ffn_down\.weight/), 'a weight that is no number: it gives up the model') or diag(log_of($wrong));
    my ($told, $why) = post($wrong->{port}, '/v1/completions', {prompt => 'a'});
    is($told, 503, 'a request to it: 503') or diag($why);
    like($why, qr/"wrong\.gguf: tensor blk\.3\.ffn_down\.weight holds a number/, 'with the file and the tensor');
    like(log_of($wrong), qr{node +info +model (\.\.\.|\Q$dir\E/).*wrong\.gguf: }, 'the console has where it lies');
    hides_folders($wrong, 'no number', $why);
    leave($wrong, 'no number');
}

# ---- with a key there may be others who take the most of it; until they come requests are refused
my $too_small = $least{'with a key'} - 2;
my $small = node("$dir/small.gguf", '--memory', "${too_small}M", '--discovery', 'off', '--cluster_key', $small_key);
ok(says($small, qr/error FAILED: .*memory/), 'too little memory: FAILED, and why') or diag(log_of($small));
refused($small->{port}, 503, qr/memory/, 'a request to a FAILED node');
my ($status, $body) = get($small->{port}, '/health');
is($status, 503, 'its /health: 503');
like($body, qr/"failed","why":".*memory/, 'and why');
leave($small, 'too little memory');
my ($give) = $small->{err} =~ /FAILED: .*\bgive it --memory (\d+)M or more$/m;
cmp_ok(abs(($give // 0) - $least{'with a key'}), '<=', 1, 'the log has it, to the remedy');
is(scalar(() = $small->{err} =~ /cannot serve/g), 1, 'and the alert once');

# ---- the end waits for answers under way, but not for a second signal: six of all lengths that fit the
# context, in so little memory that each token comes from the disk
my $busy = node('--memory', is_sanitized() ? $memory : '6M');
ok(says($busy, qr/ALONE: this node serves/), 'in 6 MiB it serves') or diag(log_of($busy));
SKIP: {
    skip 'sanitized, it has more memory', 2 if is_sanitized();
    my ($status, $why) = post($busy->{port}, '/v1/completions', {prompt => 'a', grammar => 'root ::= "ab"'});
    is($status, 400, 'but holds no answer to a grammar') or diag($why);
    like($why, qr/16 MiB or more/, 'and says what would');
}
my $long = JSON::PP->new->encode({prompt => [('a') x 6], max_tokens => -1, temperature => 100, top_k => 0, top_p => 1, min_p => 0});
my $asker = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $busy->{port}, Timeout => 10) or die "connect: $!";
print $asker "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ",
  length $long, "\r\n\r\n$long";
my $is_running = 0;
for (my $until = time + 20 * $slow; time < $until && !$is_running; sleep 0.02) {
    $is_running = (get($busy->{port}, '/status.json'))[1] =~ /"running":[1-9]/;
}
ok($is_running, 'answers are under way');
kill 'TERM', $busy->{pid};
ok(says($busy, qr/asked to stop/), 'SIGTERM: it waits for what is under way');
kill 'TERM', $busy->{pid};
my $began = time;
finish($busy, 20);
close $asker;
is($busy->{status}, 143, 'a second SIGTERM ends it');
cmp_ok(time - $began, '<', 4, 'at once');
like($busy->{err}, qr/stopped at once by a second signal\n\z/, 'and it says so');

# ---- a folder of models
mkdir "$dir/$_" for qw(models empty);
my $empty = node('--models', "$dir/empty");
ok(says($empty, qr/no \.gguf or \.m file in .*no model/), 'an empty folder: no model, and it says so');
ok(says($empty, qr/HTTP on port/), 'but a page');
refused($empty->{port}, 503, qr/answers no requests itself; ask another node/, 'a request to a node without a model');
is((get($empty->{port}, '/health'))[0], 503, 'its /health: 503');
hides_folders($empty, 'no model');
leave($empty, 'no model');
SKIP: {
    skip 'no demo.gguf here', 7 if !-r $demo;
    copy($demo, "$dir/models/$_.gguf") or die "copy: $!" for qw(b a);
    my $two = node('--models', "$dir/models");
    ok(says($two, qr/ALONE:/), 'two models: one is served');
    like(log_of($two), qr/2 models in .*taking the first by name, a\.gguf/, 'the first by name, with a note');
    hides_folders($two, 'two models');
    leave($two, 'two models');
}

# ---- with a key: two nodes and a guest
my $key = dair(['keygen'])->{out};
chomp $key;
$ENV{DAIR_CLUSTER_KEY} = $key;
my $one = node('--discovery', 'off');
ok(says($one, qr/READY: 1 node serves/), 'with a key and nobody else: READY') or diag(log_of($one));
my $two = node('--discovery', 'off', '--peers', "127.0.0.1:$one->{cluster}");
ok(says($two, qr/READY: 2 nodes serve/), 'a second one finds it by its name') or diag(log_of($one), log_of($two));
ok(says($one, qr/READY: 2 nodes serve/), 'and they serve together');
is(completion($_->{port}, $prompt), $expected, 'the same text from each') for $one, $two;
my $bare = node('--models', "$dir/empty", '--discovery', 'off', '--peers', "127.0.0.1:$one->{cluster},127.0.0.1:$two->{cluster}");
ok(says($bare, qr/ask another node, such as http:/), 'a node without a model says who answers') or diag(log_of($bare));
refused($bare->{port}, 503, qr{such as http://127\.0\.0\.1:(?:$one->{port}|$two->{port})/}, 'asked');
end_one($bare);
my @ask = ('run', '--raw', '-p', $prompt, '-n', 24, '--temp', 0, '--memory', $memory, '--threads', 1, '--interface', 'lo');
my $astray = begin([@ask, '--workers', "127.0.0.1:$one->{port}"]);
my $guest = dair([@ask, '--workers', "127.0.0.1:$one->{cluster}", "127.0.0.1:$two->{cluster}"], seconds => 60);
is($guest->{status}, 0, 'run --workers: exit status 0') or diag($guest->{err});
is($guest->{out}, $expected, 'and the same text');
like($guest->{err}, qr/^cluster   3 nodes; this one keeps/m, 'three nodes worked');
like($guest->{err}, qr/^cluster   READY, 3 of 3 nodes are here$/m, 'and it said when all were there');
like($guest->{err}, qr/^answer    \d+ tokens(?:, cut off by -n)?, (?!0\.00 )\d/m, 'with the speed');
my $figures = figures(dair([@ask, '--json', '--workers', "127.0.0.1:$one->{cluster},127.0.0.1:$two->{cluster}"], seconds => 60));
is($figures->{tokens}, 24, '--json: the figures') if ($figures->{end} // '') eq 'length';
is($figures->{nodes}, 3, '--json: of three nodes');
cmp_ok($figures->{decode_tps} // 0, '>', 0, '--json: and how fast they were');
ok(says($one, qr/epoch \d+: 3 nodes.*(\n.*)*epoch \d+: 2 nodes/), 'the guest has left') or diag(log_of($one));
my $half = dair([@ask, '--workers', "127.0.0.1:$one->{cluster}"], seconds => 60);
is($half->{status}, 1, 'run --workers with one of two: exit status 1');
like($half->{err}, qr/works with node \w+, which did not connect.*name all of them after --workers\n\z/, 'and the remedy');
{
    local $ENV{DAIR_CLUSTER_KEY} = '';
    my $none = dair([@ask, '--workers', "127.0.0.1:$one->{cluster}"]);
    is($none->{status}, 2, 'run --workers without a key: exit status 2');
    like($none->{err}, qr/--workers needs the cluster's key/, 'and what it needs');
}


# Who cannot come, and why: known long before patience is over.
sub failed {
    my ($run, $name, $like) = @_;
    is($run->{status}, 1, "$name: exit status 1");
    my ($last) = $run->{err} =~ /([^\n]*)\n\z/;
    like($last, $like, "$name: the last line says why");
    unlike($run->{err}, qr/READY/, "$name: no READY");
}

sub fails {
    my ($name, $like, @words) = @_;
    my $began = time;
    failed(dair([@ask, @words], seconds => 60), $name, $like);
    cmp_ok(time - $began, '<', 20, "$name: at once");
}
my @one = ('--workers', "127.0.0.1:$one->{cluster}");
fails('other rounding', qr/round numbers differently: .*`kv`.*is this process/, @one, '--kv', 'f32');
SKIP: {
    skip 'sanitized: no model is made', 4 if is_sanitized();
    synth("$dir/x.gguf", 'llama-3.2-1b,layers=1', 'q4_0');
    fails('another model', qr/they do not work together until all have the same file/, "$dir/x.gguf", '--memory', '2G', @one);
}
{
    local $ENV{DAIR_CLUSTER_KEY} = dair(['keygen'])->{out} =~ s/\n//r;
    fails('another key', qr/127\.0\.0\.1:$one->{cluster}: the other side has another cluster key; set DAIR_CLUSTER_KEY/, @one);
}
failed(finish($astray, 60), 'the port of HTTP', qr/0 of 1 workers joined within 30 s: 127\.0\.0\.1:$one->{port}: .*cluster port .*not the port of HTTP/);
leave($two, 'the second');
is(completion($one->{port}, $prompt), $expected, 'the first goes on alone');
leave($one, 'the first');
done_testing();
