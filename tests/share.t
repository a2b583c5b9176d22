#!/usr/bin/perl
# share.t - the work and the traffic of a cluster: shares as measured or wished, what a token costs on
# the line, many requests at once, and nodes that are asked to stop while they answer.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my %ask = (prompt => 'A node', max_tokens => 24);
my $right;

sub cluster { my ($n, %o) = @_; return Nodes->new(lab => Lab->new(nodes => $n), memory => '32M', %o) }
sub same { my ($nodes, $i, $name) = @_; $right //= $nodes->alone(%ask); is($nodes->text($i, %ask), $right, $name) }

my $model = synth(scratch() . '/wide.gguf', 'llama-3.2-1b,layers=2', 'q4_0');
my @wide  = (model => $model, memory => '600M', args => ['--ctx', 256], alone_args => ['--ctx', 256], patience => 120);

# ---- shares: by number of node
sub shares {
    my ($nodes, @i) = @_;
    my %by_id = map { $_->{id} => $_->{share} } @{$nodes->status($i[0])->{cluster}{nodes}};
    return map { $by_id{$nodes->status($_)->{node}{id}} } @i;
}
{
    # Measured speeds: the third node computes without the CPU's vectors, some fifty times as slowly, and
    # a model as wide as this has rows enough for it, too.
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), share => 'auto', @wide);
    my %few   = (prompt => 'Hello world', max_tokens => 6);
    $nodes->{of}{3} = {env => {DAIR_CPU => 'scalar'}};
    $nodes->start(1 .. 3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'two nodes and a slow one serve') or diag($@);
    my @share = shares($nodes, 1 .. 3);
    my $told  = join ' ', map { sprintf '%.3f', $_ } @share;
    cmp_ok(abs($share[0] + $share[1] + $share[2] - 1), '<', 0.001, "their shares are the whole: $told");
    cmp_ok($share[2], '<', 0.5 * $share[$_], 'the slow one has less than half of node ' . ($_ + 1) . "'s") for 0, 1;
    cmp_ok($share[2], '>', 0, 'but a part');
    my $one = $nodes->alone(%few);
    is(eval { $nodes->text($_, %few) }, $one, "shares by speed: node $_ answers") or diag($@) for 1, 3;
    $nodes->end($_) for 1 .. 3;
}
{
    # Wished: a multiple of an average node's.
    my $nodes = cluster(3);
    my %wish  = (1 => 2, 2 => 1, 3 => 0.5);
    $nodes->{of}{$_} = {share => $wish{$_}} for 1 .. 3;
    $nodes->start(1 .. 3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'three nodes with wishes serve') or diag($@);
    my @share = shares($nodes, 1 .. 3);
    my $sum   = 3.5;
    for my $i (1 .. 3) {
        # Of 4 KV heads and the like nobody gets a part: a quarter of the whole may be missed there.
        my $want = $wish{$i} / $sum;
        cmp_ok(abs($share[$i - 1] - $want), '<', 0.08, sprintf 'node %d wished %.3f of the work and has %.3f', $i, $want, $share[$i - 1]);
    }
    ok($share[0] > $share[1] && $share[1] > $share[2], 'in the order of their wishes');
    same($nodes, $_, "shares by wish: node $_ answers") for 1, 3;
    $nodes->end($_) for 1 .. 3;
}

# ---- many at once
{
    my $nodes = cluster(3);
    my $lab   = $nodes->{lab};
    $nodes->start(1 .. 3)->serving(3, 1 .. 3);
    my @prompt = ('A node', 'Once upon a time', 'The cat', 'In the morning', 'One day a little', 'There was');
    my @ask = map { {prompt => $prompt[$_ % 6], max_tokens => 30, temperature => $_ % 3 ? 0.8 : 0, seed => $_} } 0 .. 23;
    my @want = map { $nodes->alone(%$_) } @ask;
    my %text = map { $_ => 1 } @want;
    cmp_ok(scalar keys %text, '>=', 16, '24 requests with ' . keys(%text) . ' texts');
    my $check = sub {
        my ($name, @answer) = @_;
        Lab::gather(60, @answer);
        my $bad = 0;
        for my $k (0 .. $#answer) {
            my ($text, $why) = Nodes::whole_text($answer[$k]);
            next if defined $text && $text eq $want[$k];
            diag("request $k: ", $text // $why, "\n   want: $want[$k]");
            $bad++;
        }
        is($bad, 0, "$name: all " . @answer . ' answers are whole, each with its text');
    };
    $check->('24 at once over three fronts', map { $nodes->ask(1 + $_ % 3, %{$ask[$_]}) } 0 .. 23);

    my $leader = $nodes->leader(1);
    my @front  = grep { $_ != $leader } 1 .. 3;
    $lab->bad_line($front[0], delay_ms => 2);    # so that a token takes a while
    my @answer = map { $nodes->ask($front[$_ % 2], %{$ask[$_]}) } 0 .. 23;
    my @lost   = map { $nodes->ask($leader, %{$ask[$_]}) } 0 .. 3;
    eval { await { $_->read_on(0) for @answer; 4 <= grep { @{$_->{events}} > 5 } @answer } 60, 'the middle' } or diag($@);
    my $open = grep { !$_->{ended} } @answer;
    $nodes->kill_node($leader);
    $lab->bad_line($front[0]);
    cmp_ok($open, '>=', 12, "the leader dies with $open of 24 under way, and four of its own");
    $check->('the leader killed', @answer);
    Lab::gather(10, @lost);
    is(scalar(grep { $_->{ended} } @lost), 4, 'what was asked of the dead itself has ended, too');
    ok(eval { $nodes->serving(2, @front) }, 'two serve on') or diag($@);
    # What a node shows of the leader's load came with the last beat.
    my $load;
    my $is_idle = sub { $load = $nodes->status($front[0])->{load}; return !($load->{running} + $load->{waiting}) };
    ok(eval { await { $is_idle->() } 10, 'no load' }, 'with nothing left over') or diag("$load->{running} run, $load->{waiting} wait");
    $nodes->end($_) for @front;
}

# ---- asked to stop with answers under way
{
    my $nodes = cluster(3);
    my $lab   = $nodes->{lab};
    my %long  = (prompt => 'A node', max_tokens => 100);
    my $text  = $nodes->alone(%long);
    $nodes->start(1 .. 3)->serving(3, 1 .. 3);
    my $leader = $nodes->leader(1);
    my ($front, $other) = grep { $_ != $leader } 1 .. 3;
    $lab->bad_line($other, delay_ms => 2);

    my $answer = $nodes->under_way($front, %long);
    my $begin  = now();
    my $p      = delete $nodes->{node}{$front};
    ok(!$answer->{ended}, 'a front is asked to stop with an answer under way');
    $lab->signal($p, 'TERM');
    eval { await { $answer->read_on(0); defined $lab->status($p) } 20, 'it ends' } or diag($@, $lab->err($p));
    my $took = now() - $begin;
    Lab::gather(2, $answer);
    my ($got, $why) = Nodes::whole_text($answer);
    is($got, $text, 'it finishes it') or diag($why, $lab->err($p));
    is($lab->status($p), 0, 'and exits with 0');
    cmp_ok($took, '<=', 10, sprintf 'within 10 s: %.1f s', $took);
    cmp_ok(Nodes::longest_gap($answer), '<', 2, sprintf 'the longest pause in it: %.2f s', Nodes::longest_gap($answer));
    $nodes->start($front);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'it comes back') or diag($@);

    $leader = $nodes->leader(1);
    ($front) = grep { $_ != $leader } 1 .. 3;
    $lab->bad_line($other);
    $lab->bad_line($front, delay_ms => 2);
    $answer = $nodes->under_way($front, %long);
    $p      = delete $nodes->{node}{$leader};
    ok(!$answer->{ended}, 'the leader is asked to stop with an answer of another front under way');
    my $n = @{$answer->{events}};
    $lab->signal($p, 'TERM');
    Lab::gather(30, $answer);
    eval { await { defined $lab->status($p) } 15, 'it ends' } or diag($@);
    is($lab->status($p), 0, 'it exits with 0') or diag($lab->err($p));
    ($got, $why) = Nodes::whole_text($answer);
    is($got, $text, 'the answer goes on, the same text') or diag($why, $nodes->trouble);
    cmp_ok(scalar @{$answer->{events}}, '>', $n + 10, 'after the leader was told');
    cmp_ok(Nodes::longest_gap($answer), '<', 2, sprintf 'the longest pause in it: %.2f s', Nodes::longest_gap($answer));
    ok(eval { $nodes->serving(2, $nodes->running) }, 'the others serve') or diag($@);
    unlike($nodes->log_of($_), qr/DEGRADED/, "node $_ does not miss one that left in good order") for $front;
    $nodes->end($_) for $nodes->running;
}

# ---- what two nodes send each other
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), @wide);
    my $lab   = $nodes->{lab};
    $nodes->start(1, 2);
    ok(eval { $nodes->serving(2, 1, 2) }, sprintf 'two nodes serve a model of %.0f MB, d = 2048', (-s $model) / 1e6) or diag($@);
    for my $i (1, 2) {
        my $bytes = $lab->bytes($i);
        cmp_ok($bytes->{sent}, '<', 200e3, "node $i: no weights on the line: $bytes->{sent} bytes sent before any request");
    }
    my $count = sub {
        my $answer = $nodes->ask(1, prompt => 'Hello world', max_tokens => shift, stream_options => {include_usage => JSON::PP::true});
        Lab::gather(120, $answer) or die "no answer\n" . $nodes->trouble;
        my ($text, $why) = Nodes::whole_text($answer);
        die "no answer: $why\n" unless defined $text;
        my ($usage) = map { $_->{usage} // () } map { JSON::PP::decode_json($_->{data}) } grep { $_->{data} ne '[DONE]' } @{$answer->{events}};
        return $usage->{prompt_tokens} + $usage->{completion_tokens} - 1;    # the last one is not fed back
    };
    $count->(2);
    my %was  = map { $_ => [$nodes->status($_), $lab->bytes($_)] } 1, 2;
    my $n    = $count->(48);
    my %is   = map { $_ => [$nodes->status($_), $lab->bytes($_)] } 1, 2;
    for my $i (1, 2) {
        my ($payload, $wire) = map { my $k = "sent_${_}_bytes"; ($is{$i}[0]{net}{$k} - $was{$i}[0]{net}{$k}) / $n } qw(payload wire);
        my $line    = ($is{$i}[1]{sent} - $was{$i}[1]{sent}) / $n;
        my $formula = $is{$i}[0]{plan}{wire_bytes_per_token};
        cmp_ok(abs($payload / $formula - 1), '<=', 0.01, sprintf 'node %d: %.0f bytes of payload for each of %d tokens, by the formula %.0f', $i, $payload, $n, $formula);
        cmp_ok($wire, '<=', 1.02 * $payload, sprintf 'node %d: sealed %.0f, %.2f %% more', $i, $wire, 100 * ($wire / $payload - 1));
        cmp_ok($wire, '>', $payload, "node $i: and sealed it is");
        cmp_ok($line, '<=', 1.08 * $payload, sprintf 'node %d: on the line %.0f, %.2f %% more', $i, $line, 100 * ($line / $payload - 1));
        cmp_ok($line, '>', $wire, "node $i: the line carries all of it");
    }
    # Each reads anew what it needs when another comes or is lost, from its own disk.
    my %before = map { $_ => $lab->bytes($_) } 1 .. 3;
    $nodes->start(3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'a third takes part') or diag($@);
    $nodes->kill_node(3);
    ok(eval { $nodes->serving(2, 1, 2) }, 'and is lost') or diag($@);
    for my $i (1 .. 3) {
        my $sent = $lab->bytes($i)->{sent} - $before{$i}{sent};
        cmp_ok($sent, '<', 500e3, "node $i: no weights on the line then either: $sent bytes sent");
    }
    $nodes->end($_) for 1, 2;
}
done_testing;
