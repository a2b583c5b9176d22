#!/usr/bin/perl
# sweep.t - a prompt of hundreds of tokens passes the weights of a streaming model once, on every node:
# each layer is read, all of the prompt goes through it, then the next. A node that dies meanwhile, a user
# who goes, and one who is in the middle of an answer are as with short steps.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use JSON::PP ();
use Nodes;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my @ctx    = ('--ctx', 512);
my $folder = scratch();
my $model  = synth("$folder/model.gguf", 'tiny,layers=128', 'q8_0');    # a layer is 0.3 MB for each of two nodes
my $long   = 'one two three four five six seven eight ' x 15;                 # 407 tokens
my %memory = (1 => '85M', 2 => '46M', 3 => '36M');

sub cluster {
    my ($n, %o) = @_;
    my $nodes = Nodes->new(lab => Lab->new(nodes => $n), model => $model, memory => $memory{$n}, args => \@ctx, alone_args => \@ctx,
        patience => 120, %o);
    $nodes->start(1 .. $n);
    ok(eval { $nodes->serving($n, 1 .. $n) }, "$n serve") or diag($@);
    return $nodes;
}

# Bytes that node I has read from its disk: by the kernel's count of all its reads, and by its own.
sub by_kernel { my ($nodes, $i) = @_; return (Lab::slurp('/proc/' . $nodes->pid($i) . '/io') =~ /^rchar: (\d+)/m)[0] }
sub by_itself { my ($nodes, $i) = @_; return $nodes->status($i)->{load}{read_bytes} // 0 }

# Of a sweep, so much is read of the disk for each token at node I.
sub streamed {
    my ($nodes, $i) = @_;
    my $s = $nodes->status($i);
    return (map { $_->{streamed_bytes} } grep { $_->{id} eq $s->{node}{id} } @{$s->{cluster}{nodes}})[0];
}

# The readers have run ahead as far as they can.
sub calm {
    my $nodes = shift;
    my $sum = sub { my $n = 0; $n += by_itself($nodes, $_) for $nodes->running; return $n };
    my ($was, $is) = (-1, $sum->());
    for (1 .. 100) { select undef, undef, undef, 0.3; ($was, $is) = ($is, $sum->()); return if $was == $is }
}

sub within {
    my ($nodes, $n, $name) = @_;
    my ($budget) = $memory{$n} =~ /(\d+)/;
    cmp_ok($nodes->size($_)->{peak}, '<=', $budget << 20, "$name: node $_ within its budget of $memory{$n}") for $nodes->running;
}

my %ask = (greedy => {prompt => $long, max_tokens => 4}, sampled => {prompt => $long, max_tokens => 4, temperature => 0.9, seed => 3});
my %right = map { $_ => Nodes->new(lab => undef, model => $model, key => 'none', alone_args => \@ctx)->alone(%{$ask{$_}}) } keys %ask;
isnt($right{greedy}, $right{sampled}, 'greedy and sampled differ');

for my $n (1 .. 3) {
    my $nodes = cluster($n);
    my $most  = $nodes->status(1)->{plan}{sweep_tokens} // 0;
    cmp_ok($most, '>', 64, "$n: up to $most tokens pass the weights together");
    calm($nodes);
    my %sweep = map { $_ => streamed($nodes, $_) } 1 .. $n;
    my %was = map { $_ => [by_kernel($nodes, $_), by_itself($nodes, $_)] } 1 .. $n;
    my $answer = $nodes->ask($n, prompt => $long, max_tokens => 1, stream_options => {include_usage => JSON::PP::true});
    Lab::gather(120, $answer) or diag($nodes->trouble);
    my ($text, $why) = Nodes::whole_text($answer);
    is($text, substr($right{greedy}, 0, length $text // ''), "$n: the first token") or diag($why);
    my ($usage) = map { $_->{usage} // () } map { JSON::PP::decode_json($_->{data}) } grep { $_->{data} ne '[DONE]' } @{$answer->{events}};
    my $tokens = $usage->{prompt_tokens} // 0;
    cmp_ok($tokens, '>', 300, "$n: a prompt of $tokens tokens");
    calm($nodes);
    my $n_streams = 0;
    for my $i (1 .. $n) {
        my ($kernel, $itself) = (by_kernel($nodes, $i) - $was{$i}[0], by_itself($nodes, $i) - $was{$i}[1]);
        next if $sweep{$i} < 10e6;    # one without KV heads has memory enough
        $n_streams++;
        cmp_ok($kernel, '<=', 1.1 * $sweep{$i}, sprintf '%d: of %.1f MB a sweep node %d reads %.3f for the prompt', $n, $sweep{$i} / 1e6, $i, $kernel / $sweep{$i});
        cmp_ok(abs($kernel - $itself), '<', 0.02 * $sweep{$i}, "$n: and says so");
    }
    cmp_ok($n_streams, '>=', $n < 2 ? $n : 2, "$n: of which $n_streams stream");
    is(eval { $nodes->text($n, %{$ask{$_}}) }, $right{$_}, "$n: the text of one process, $_") or diag($@) for sort keys %ask;
    within($nodes, $n, $n);
    $nodes->end($_) for 1 .. $n;
}

# Nodes are in the middle of the sweep that a request began.
sub amid {
    my ($nodes, $answer) = @_;
    my %half  = map { $_ => streamed($nodes, $_) / 2 } $nodes->running;
    my ($i)   = sort { $half{$b} <=> $half{$a} } keys %half;
    my $begun = by_kernel($nodes, $i);
    eval { Lab::await { $answer->read_on(0); $answer->{ended} || by_kernel($nodes, $i) > $begun + $half{$i} } 60, 'half a sweep' } or diag($@);
    ok(!$answer->{ended} && !@{$answer->{events}}, 'in the middle of the prompt');
}

# ---- death, and the loss of interest
{
    my $nodes = cluster(3);
    my $lab   = $nodes->{lab};
    for my $who (qw(another leader)) {
        calm($nodes);
        my $leader = $nodes->leader(1);
        my ($front) = grep { $_ != $leader } 1 .. 3;
        my ($victim) = $who eq 'leader' ? $leader : grep { $_ != $leader && $_ != $front } 1 .. 3;
        $lab->bad_line($front, delay_ms => 4);
        my $answer = $nodes->ask($front, %{$ask{sampled}});
        amid($nodes, $answer);
        $nodes->kill_node($victim);
        $lab->bad_line($front);
        Lab::gather(120, $answer);
        my ($text, $why) = Nodes::whole_text($answer);
        is($text, $right{sampled}, "$who dies: the answer is whole, the same text") or diag($why, $nodes->trouble);
        cmp_ok($nodes->status($front)->{net}{resubmitted}, '>', 0, "$who dies: it was handed to another epoch");
        $nodes->start($victim);
        ok(eval { $nodes->serving(3, 1 .. 3) }, 'it comes back') or diag($@);
    }
    calm($nodes);
    my $leader = $nodes->leader(1);
    my ($front) = grep { $_ != $leader } 1 .. 3;
    # What nobody waits for is broken off, at the same place by all; else the next one would wait for its end.
    my $gathers = sub { return $nodes->status($leader)->{net}{gathers} };
    my $whole   = $gathers->();
    my $first   = eval { $nodes->text($front, %{$ask{greedy}}, max_tokens => 1) } // '';
    is($first, substr($right{greedy}, 0, length $first), 'the first token') or diag($@);
    $whole = $gathers->() - $whole;
    calm($nodes);
    my $epoch = $nodes->status($leader)->{cluster}{epoch};
    $lab->bad_line($front, delay_ms => 20);
    my $answer = $nodes->ask($front, %{$ask{greedy}});
    my $begun  = $gathers->();
    eval { Lab::await { $answer->read_on(0); $gathers->() - $begun > $whole / 8 } 60, 'some layers' } or diag($@);
    ok(!$answer->{ended} && !@{$answer->{events}}, 'in the middle of the prompt');
    close $answer->{socket};
    eval { Lab::await { !$nodes->status($leader)->{load}{running} } 60, 'nothing to do' } or diag($@);
    my $done = $gathers->() - $begun;
    cmp_ok($done, '<', $whole / 2, "the user goes: $done of the step's $whole gathers are done");
    $lab->bad_line($front);
    is(eval { $nodes->text($leader, %{$ask{greedy}}) }, $right{greedy}, 'the next one is answered') or diag($@);
    is(eval { $nodes->text($front, %{$ask{sampled}}) }, $right{sampled}, 'and another') or diag($@);
    is($nodes->status($leader)->{cluster}{epoch}, $epoch, 'in the same epoch');
    is($nodes->status($leader)->{load}{running}, 0, 'and nothing is left over');
    within($nodes, 3, 'deaths');
    $nodes->end($_) for 1 .. 3;
}

# ---- beside one whose answer is under way
{
    my $wide  = synth("$folder/wide.gguf", 'llama-3.2-1b,vocab=1024', 'q4_0');
    my @small = ('--ctx', 256);
    my $nodes = cluster(2, model => $wide, memory => '190M', args => \@small, alone_args => \@small);
    my %first  = (prompt => 'one two', max_tokens => 40);
    my %second = (prompt => 'one two three four five six seven eight ' x 9, max_tokens => 2);    # 218 tokens
    cmp_ok($nodes->status(1)->{load}{slots}, '>=', 2, 'room for two');
    cmp_ok($nodes->status(1)->{plan}{sweep_tokens} // 0, '>', 64, 'and for long steps');
    my $first  = $nodes->under_way(1, %first);
    my $second = $nodes->ask(2, %second);
    my $n      = @{$first->{events}};
    eval { Lab::await { $_->read_on(0) for $first, $second; @{$second->{events}} || $second->{ended} } 120, 'the second begins' } or diag($@);
    my $more = @{$first->{events}} - $n;
    ok(!$first->{ended}, 'a long prompt beside an answer that goes on');
    cmp_ok($more, '>=', 3, "while it is read the answer grows by $more tokens");
    Lab::gather(120, $first, $second);
    is((Nodes::whole_text($first))[0],  $nodes->alone(%first),  'both are whole, with their texts');
    is((Nodes::whole_text($second))[0], $nodes->alone(%second), 'both are whole, with their texts');
    $nodes->end($_) for 1, 2;
    unlink $wide;
}

# ---- experts are wanted anew by each part of the prompt that goes together
{
    my $moe   = synth("$folder/moe.gguf", 'moe-small', 'q4_0');
    my $nodes = Nodes->new(lab => Lab->new(nodes => 2), model => $moe, memory => '24M', args => \@ctx, alone_args => \@ctx, patience => 120);
    $nodes->start(1, 2);
    ok(eval { $nodes->serving(2, 1, 2) }, 'experts: two serve') or diag($@);
    is(eval { $nodes->text(1, %{$ask{greedy}}) }, $nodes->alone(%{$ask{greedy}}), 'experts: the text of one process') or diag($@);
    cmp_ok($nodes->status(1)->{plan}{sweep_tokens} // 0, '>', 64, 'experts: in a long step');
    $nodes->end($_) for 1, 2;
}
done_testing;
