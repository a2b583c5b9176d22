#!/usr/bin/perl
# bench_cluster.pl MODEL - two nodes of one thread each in a laboratory: tokens/s beside one node, what
# they send and what sealing it costs; and distributed-llama's root + 1 worker with the same threads on
# the same lines, if `dllama` is on the PATH and DLLAMA_MODEL, DLLAMA_TOKENIZER name its files of the
# same shape. An object of JSON a line.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use JSON::PP ();
use Nodes;

my $model  = shift;
my $tokens = 64;
my $json   = JSON::PP->new->canonical;
sub told { print $json->encode({@_}), "\n" }

sub nodes {
    my ($n, @more) = @_;
    my $nodes = Nodes->new(lab => Lab->new(nodes => $n), model => $model, memory => '1600M', args => ['--ctx', 512, @more], patience => 120);
    $nodes->start(1 .. $n)->serving($n, 1 .. $n);
    return $nodes;
}

# Decoding by events: from the first token to the last.
my $computed;
sub speed {
    my $nodes  = shift;
    my $answer = $nodes->ask(1, prompt => 'Hello world', max_tokens => $tokens, stream_options => {include_usage => JSON::PP::true});
    Lab::gather(300, $answer) or die "no answer\n" . $nodes->trouble;
    my @e = grep { $_->{data} ne '[DONE]' } @{$answer->{events}};
    die "one event: $answer->{body}\n" if @e < 4;
    my $usage = JSON::PP::decode_json((pop @e)->{data})->{usage};
    $computed = $usage->{prompt_tokens} + $usage->{completion_tokens} - 1;    # the last one is not fed back
    return $#e / ($e[-1]{at} - $e[0]{at});
}

# Twice each, in turn; the first answer warms up.
my (%tps, %net);
for my $n (1, 2) {
    my $nodes = nodes($n);
    speed($nodes);
    my ($was, $line) = ($nodes->status(1)->{net}, $n > 1 ? $nodes->{lab}->bytes(1) : {sent => 0});
    my @s = map { speed($nodes) } 1 .. 2;
    my ($is, $end) = ($nodes->status(1)->{net}, $n > 1 ? $nodes->{lab}->bytes(1) : {sent => 0});
    $tps{$n} = $s[0] > $s[1] ? $s[0] : $s[1];
    my $per = 1 / (2 * $computed);
    %net = (
        payload => ($is->{sent_payload_bytes} - $was->{sent_payload_bytes}) * $per,
        wire    => ($is->{sent_wire_bytes} - $was->{sent_wire_bytes}) * $per,
        line    => ($end->{sent} - $line->{sent}) * $per,
        crypt_ms => ($is->{crypt_ns} - $was->{crypt_ns}) * $per / 1e6,
        formula => $nodes->status(1)->{plan}{wire_bytes_per_token},
    ) if $n == 2;
    $nodes->end($_) for 1 .. $n;
}
told(what => 'dair', one => $tps{1}, two => $tps{2}, %net, crypt_part => $net{crypt_ms} * $tps{2} / 1e3);

my ($peer) = grep { -x } map { "$_/dllama" } split /:/, $ENV{PATH};
my ($m, $t) = @ENV{qw(DLLAMA_MODEL DLLAMA_TOKENIZER)};
if ($peer && $m && $t) {
    my $lab    = Lab->new(nodes => 2);
    my $worker = $lab->start(2, [$peer, 'worker', '--port', 9999, '--nthreads', 1, '--net-turbo', 1]);
    Lab::await { $lab->listens(2, 9999) } 20, 'the worker listens';
    my $root = $lab->start(1, [$peer, 'inference', '--model', $m, '--tokenizer', $t, '--buffer-float-type', 'q80', '--prompt',
        'Hello world', '--steps', $tokens, '--nthreads', 1, '--temperature', 0, '--max-seq-len', 512, '--net-turbo', 1,
        '--workers', $lab->address(2) . ':9999']);
    Lab::await { defined $lab->status($root) } 300, 'the root ends';
    my ($tps) = $lab->out($root) =~ /Prediction.*?tokens\/s:\s*([\d.]+)/s;
    told(what => 'dllama', two => $tps + 0);
} else {
    told(what => 'dllama', skipped => 'no dllama on the PATH, or DLLAMA_MODEL and DLLAMA_TOKENIZER are not set');
}
