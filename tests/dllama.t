#!/usr/bin/perl
# dllama.t - a model of distributed-llama, made here, through the whole program: every verb that takes a
# model, with the tokenizer named, beside it, or not to be found; alone, in slices and as a cluster.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep time);

delete $ENV{DAIR_CLUSTER_KEY};
my $dir = scratch();
my $memory = is_sanitized() ? '512M' : '64M';

# ---- the files: two layers, 64 wide, matrices in Q4_0, a vocabulary of bytes, pieces and specials
my @pieces = ('he', 'll', 'lo', ' w', 'or', 'ld', 'hell', 'hello', ' wor', ' world');
my @special = ('<|begin|>', '<|done|>', '<|im_start|>', '<|im_end|>', '<think>', '</think>');
my @words = (map({ chr } 0 .. 255), @pieces, @special);
my $seed = 1;

sub random { $seed = ($seed * 69069 + 1) & 0xffffffff; return ($seed >> 8) / (1 << 24) - 0.5 }
sub floats { my ($n, $about) = @_; return pack 'f<*', map { ($about // 0) + random() / 4 } 1 .. $n }
sub blocks { my $n = shift; return join '', map { pack 'vC16', 0x2800, map { int(256 * (random() + 0.5)) } 1 .. 16 } 1 .. $n / 32 }

sub model {
    my ($d, $ff, $layers, $heads, $kv, $v) = (64, 96, 2, 4, 2, scalar @words);
    my %key = (0 => 0, 1 => 0xabcd00, 2 => $d, 3 => $ff, 4 => $layers, 5 => $heads, 6 => $kv, 9 => $v, 10 => 256, 13 => 2);
    my $hd = $d / $heads;
    my $layer = sub {
        join '', map({ blocks($d * $_) } $heads * $hd, $kv * $hd, $kv * $hd, $heads * $hd, $ff, $ff, $ff), floats($d, 1), floats($d, 1);
    };
    return pack('V*', 0x0a00abcd, 8 + 8 * keys %key, %key) . floats($d * $v) . join('', map { $layer->() } 1 .. $layers)
      . floats($d, 1) . blocks($d * $v);
}

sub tokenizer {
    my $template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";
    my %key = (0 => 1, 1 => scalar @words, 2 => 12, 3 => 256 + @pieces, 7 => length $template, 9 => 1, 10 => 1);
    my $i = 0;    # bytes merge last
    return pack('V*', 0x567124, 8 + 8 * keys %key, %key) . $template . pack('V', 257 + @pieces)
      . join('', map { pack('f<V', $i++ < 256 ? -1e6 : -$i, length) . $_ } @words);
}
mkdir "$dir/$_" for qw(a b);
my ($m, $t) = ("$dir/a/toy.m", "$dir/b/words.t");
write_file($m, model());
write_file($t, tokenizer());    # copied below: made anew, its header may have another order
my @with = ($m, '--tokenizer', $t);

sub works {
    my ($words, $name, %o) = @_;
    my $run = dair($words, %o);
    is($run->{status}, 0, "$name: exit status 0") or diag($run->{err});
    return $run->{out};
}

sub refused {
    my ($words, $status, $like, $name) = @_;
    my $run = dair($words);
    is($run->{status}, $status, "$name: exit status $status") or diag($run->{err});
    like($run->{err}, qr/\A[^\n]+\n\z/, "$name: one sentence");
    like($run->{err}, $like, "$name: says what");
}

# ---- text and tokens
my $ids = works(['tokenize', @with, '-p', 'hello world'], 'tokenize');
is($ids, "263 265\n", 'tokenize: merged by scores');
is(works(['tokenize', @with, '--bos', '--special', '-p', 'hello<|im_end|>'], 'tokenize --special'), "266 263 269\n", 'tokenize: BOS and specials');
is(works(['detokenize', @with, '-p', "266 263 265 195 169 269"], 'detokenize'), "hello world\xc3\xa9", 'detokenize: specials are hidden');
write_file("$dir/chat.json", '[{"role":"user","content":"hello<|im_end|>"}]');
my ($chat) = objects(works(['render', @with, '--messages', "$dir/chat.json", '--json'], 'render'));
is($chat->{text}, "<|im_start|>user\nhello<|im_end|><|im_end|>\n<|im_start|>assistant", "render: the .t's template");
my %n;
$n{$_}++ for @{$chat->{ids}};
is("$n{266} $n{268} $n{269}", '1 2 1', 'render: control tokens from the template alone, BOS once');

# ---- running it
my @ask = ('-p', 'hello world', '-n', 24, '--temp', 0, '--raw', '--quiet', '--memory', $memory);
my $answer = works(['run', @with, @ask], 'run');
cmp_ok(length $answer, '>', 10, 'run: an answer');
is(works(['run', @with, @ask, @$_], "run @$_"), $answer, "run @$_: the same") for ['--slices', 3], ['--threads', 1];
my ($o) = objects(works(['inspect', @with, '--json', '--tensors', '--meta'], 'inspect'));
is(join(' ', @$o{qw(container arch name layers width vocabulary tokenizer)}), 'distributed-llama llama toy 2 64 272 dllama', 'inspect: what it is');
ok($o->{runs} && @{$o->{tensors}} == 21 && $o->{tokenizer_file} eq $t, 'inspect: it runs, its tensors, its .t');
like(works(['inspect', @with], 'inspect, for people'), qr/toy\.m, distributed-llama version 0.*words\.t.*Q4_0.*merges by score/s, 'inspect: in words');
like(works(['plan', @with, '--memory', $memory], 'plan'), qr/^forecast .*tokens\/s/m, 'plan: a forecast');
write_file("$dir/text", 'hello world hello world hello');
($o) = objects(works(['perplexity', @with, '-f', "$dir/text", '--json', '--memory', $memory], 'perplexity'));
ok($o->{tokens} == 7 && $o->{perplexity} > 1, 'perplexity: seven tokens scored after BOS');
my ($of_model) = grep { $_->{what} eq 'model' } objects(dair(['doctor', @with, '--json'])->{out});
ok($of_model->{ok} && $of_model->{text} =~ /toy\.m/, 'doctor: the model is fine');

# ---- the tokenizer that is found, or not
refused(['run', $m, @ask], 4, qr/toy\.m: its tokenizer, a \.t file, .*--tokenizer FILE\.t/, 'no .t');
like(works(['inspect', $m], 'inspect without .t') // '', qr/^runs here no: .*--tokenizer FILE\.t/m, 'inspect without .t: says what is missing');
write_file("$dir/a/other.t", read_file($t));
is(works(['run', $m, @ask], 'run, the only .t beside it'), $answer, 'the same answer');
write_file("$dir/a/third.t", read_file($t));
refused(['run', $m, @ask], 4, qr/2 tokenizers \(\.t\) are beside it/, 'two .t');
write_file("$dir/a/toy.t", read_file($t));
is(works(['run', $m, @ask], 'run, the .t of its name'), $answer, 'the same answer');
refused(['run', $t, @ask], 3, qr/words\.t: a tokenizer .*--tokenizer/, 'the .t as a model');
refused(['run', $m, '--tokenizer', $m, @ask], 3, qr/toy\.m: .*toy\.m: not a tokenizer/, 'the model as .t');
refused(['run', $m, '--tokenizer', "$dir/none.t", @ask], 1, qr/none\.t: .*No such file/, 'a .t that is not there');
refused(['run', '--tokenizer', $t, '-p', 'x'], 2, qr/--tokenizer needs a model/, 'a .t without a model');
my $bad = dair(['inspect', $m, '--tokenizer', $m]);
is($bad->{status}, 3, 'inspect, the model as .t: exit status 3');
is(scalar(() = "$bad->{out}$bad->{err}" =~ /not a tokenizer/g), 1, 'and why, once') or diag("$bad->{out}$bad->{err}");
write_file("$dir/cut.m", substr model(), 0, 3000);
refused(['inspect', "$dir/cut.m", '--tokenizer', $t], 3, qr/cut\.m: tensor token_embd.* 3000 bytes \(an incomplete download\?\)/, 'a cut .m');
synth("$dir/x.gguf", 'llama-3.2-1b,layers=1', 'q4_0') if !is_sanitized();
SKIP: {
    skip 'sanitized: no model of GGUF is made', 3 if is_sanitized();
    refused(['inspect', "$dir/x.gguf", '--tokenizer', $t], 2, qr/this GGUF file has its own/, 'a .t for a GGUF file');
}

# ---- as a cluster: a node and a guest, from copies in other folders
sub free_port { my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1) or BAIL_OUT('no port'); return $s->sockport }
chomp($ENV{DAIR_CLUSTER_KEY} = dair(['keygen'])->{out});
my ($port, $cluster) = (free_port(), free_port());
write_file("$dir/b/toy.m", read_file($m));
my $node = begin(['node', '--models', "$dir/b", '--model', 'toy', '--tokenizer', $t, '--discovery', 'off', '--interface', 'lo', '--state', "$dir/state",
    '--memory', $memory, '--threads', 1, '--port', $port, '--cluster-port', $cluster]);
my $log = sub { return read_file($node->{err_file}->filename) };
for (my $until = time + 60; time < $until && $log->() !~ /READY/; sleep 0.1) { }
like($log->(), qr/READY: 1 node serves toy/, 'a node serves it') or diag($log->());
my $guest = dair(['run', $m, @ask, '--threads', 1, '--interface', 'lo', '--workers', "127.0.0.1:$cluster"], seconds => 90);
is($guest->{status}, 0, 'run --workers: exit status 0') or diag($guest->{err});
is($guest->{out}, $answer, 'run --workers: the same answer');
kill 'TERM', $node->{pid};
is(finish($node, 20)->{status}, 0, 'the node ends');
done_testing();
