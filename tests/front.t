#!/usr/bin/perl
# front.t - the node that took a request, and those that compute it: never nodes with another model,
# never for one that is gone, and never less than was wished without a word.
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
my $dir = scratch();

# The id that ends an answer of the demo model.
sub end_token {
    write_file("$dir/end", '<|im_end|>');
    my ($id) = dair(['tokenize', '--special'], from => "$dir/end")->{out} =~ /(\d+)/;
    return $id;
}

# Words before `dair`: the machine's only thermal sensor says so many thousandths of a degree.
sub warmth {
    my ($milli) = @_;
    my $zone = "$dir/thermal/thermal_zone0";
    mkdir $_ for "$dir/thermal", $zone;
    write_file("$zone/temp", "$milli\n");
    return 'sh', '-c', 'mount --bind "$0" /sys/class/thermal; exec "$@"', "$dir/thermal";
}

# What `dair status` prints at node I.
sub table {
    my ($nodes, $i) = @_;
    my $p = $nodes->{lab}->start($i, [$dair, 'status']);
    Lab::await { defined $nodes->{lab}->status($p) } 10, '`dair status` ends';
    return Lab::slurp($p->{out});
}

# ---- sentences that are longer with the names of real models: none is cut before its remedy
sub named {
    my ($file, $shape, $seed, $more) = @_;
    my $old  = "synthetic $shape";
    my $text = read_file(synth($file, $shape, 'q8_0', $seed));
    my ($from, $to) = map { pack 'Q</a*', $_ } $old, $old . $more;
    $text =~ s/\Q$from\E/$to/ or die "no name in $file\n";
    length($more) % 32 == 0 or die "what follows would be out of line\n";
    write_file($file, $text);
    return substr "$old$more", 0, 63;    # so much is told
}
{
    my @name  = map { named("$dir/$_.gguf", 'moe-tiny', $_, "-$_" x 16 . '-instruct-Q8_0' . '-' x 18) } 1, 2;
    my $nodes = Nodes->new(lab => Lab->new(nodes => 2), memory => '64M');
    $nodes->{of}{$_} = {model => "$dir/$_.gguf"} for 1, 2;
    $nodes->start(1, 2);
    $nodes->serving(1, $_) for 1, 2;
    for my $i (1, 2) {
        my ($us, $them) = @name[$i - 1, 2 - $i];
        my $both = qr/\S+ has the model \Q$them\E \(\w+\), \S+ has \Q$us\E \(\w+\): they do not work together until all have the same file$/m;
        Lab::await { @{$nodes->status($i)->{alerts}} } 10, 'an alert';
        like(table($nodes, $i), qr/^alert     $both/m, "`dair status` of node $i has the whole alert");
        like($nodes->log_of($i), $both, 'and so has the log');
    }
    # It is of a node that is there.
    my $told = sub { scalar grep { $_->{code} eq 'other_model' } @{$nodes->status(1)->{alerts}} };
    $nodes->end(2);
    ok(eval { Lab::await { !$told->() } 20, 'the alert to go' }, 'when the other has gone, so has the alert') or diag($@);
    $nodes->start(2);
    ok(eval { Lab::await { $told->() } 20, 'an alert' }, 'when it is back the alert is, too') or diag($@);
    is(scalar(() = $nodes->log_of(1) =~ /do not work together/g), 1, 'which the log need not say again');
    $nodes->end($_) for 1, 2;
}

# ---- two models under one key: what one is asked is nonsense to the other
{
    my $other = synth("$dir/other.gguf", 'moe-tiny', 'q8_0');
    my $nodes = Nodes->new(lab => Lab->new(nodes => 4), memory => '64M');
    $nodes->{of}{$_} = {model => $other} for 3, 4;
    my %ask   = (prompt => 'one two', max_tokens => 60);
    my $right = Nodes->new(lab => undef, key => 'none', model => $other)->alone(%ask);
    $nodes->start(1 .. 4);
    $nodes->serving(2, 1, 2);
    $nodes->serving(2, 3, 4);
    my $leader = $nodes->leader(3);
    my ($front) = grep { $_ != $leader } 3, 4;
    $nodes->{lab}->bad_line($leader, delay_ms => 5);
    my $answer = $nodes->under_way($front, %ask);
    ok(!$answer->{ended}, 'the leader of one model dies in the middle of an answer');
    $nodes->kill_node($leader);
    ok(Lab::gather(30, $answer), 'it is whole') or diag($nodes->trouble);
    my ($text, $why) = Nodes::whole_text($answer);
    is($text, $right, 'and all of it is of that model') or diag($why);
    $nodes->kill_node($front);
    $nodes->start($front);
    Lab::await { $nodes->status($front) } 10, 'it is started anew';
    my $state = $nodes->status($front)->{node}{state};
    is(eval { $nodes->text($front, %ask) }, $right, "asked while it is $state it waits until it can answer itself") or diag($@);
    is(scalar(grep { $nodes->log_of($_) =~ /another model than the one asked/ } 1, 2), 0, 'nobody else was asked');
    $nodes->end($_) for $nodes->running;
}

# ---- a front with no part in the plan, as it cannot reach one of the nodes, dies
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 3), memory => '32M');
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $leader = $nodes->leader(1);
    my ($worker) = grep { $_ != $leader } 1, 2;
    $nodes->{lab}->cut([3], [$worker]);
    $nodes->{lab}->bad_line($worker, delay_ms => 5);
    $nodes->start(3);
    Lab::await { $nodes->status(3) } 10, 'it is started';
    my $answer = eval { $nodes->under_way(3, prompt => 'A node', max_tokens => 300) } or diag($@);
    ok($answer && !$answer->{ended}, 'a node that only the leader can reach has an answer under way');
    is(eval { $nodes->status($leader)->{load}{running} }, 1, 'which the leader computes');
    for my $i (3, $worker) {
        ok(eval { Lab::await { 1 == $nodes->status($i)->{load}{running} } 5, 'it is told' }, 'as every node says') or diag($@);
    }
    $nodes->kill_node(3);
    ok(eval { Lab::await { 0 == $nodes->status($leader)->{load}{running} } 3, 'nothing is computed' },
        'and no longer when its front is gone') or diag($@);
    $nodes->end($_) for 1, 2;
}
# ---- nodes that hold the context together, and one that is left with room for half of it
{
    my @bias  = ('--logit-bias', end_token() . ':-100');       # never ends by itself
    my $nodes = Nodes->new(lab => Lab->new(nodes => 2), memory => '8960K', prefix => [warmth(61400)], args => ['--ctx', 512, '--kv', 'f32'],
        alone_args => ['--ctx', 512, '--kv', 'f32', @bias]);
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $words = 'A node that is not there ';                   # 6 tokens
    my %long  = (prompt => $words x 60, max_tokens => 100);
    my %short = (prompt => $words x 24, max_tokens => 300);
    my @right = map { $nodes->alone(%$_) } \%long, \%short;
    is_deeply($nodes->status($_)->{plan}{after_loss}, {context => 256, slots => 1}, 'two nodes say what one of them holds') for 1, 2;
    is($nodes->status(1)->{model}{context}, 512, 'and both together');
    like(table($nodes, 1), qr/layers, context 512, 256 if a node is lost$/m, 'as `dair status` does');
    my $load  = sub { my $l = $nodes->status(shift)->{load}; return "$l->{running} run, $l->{waiting} wait" };

    # begin(): two answers under way at the node that does not lead, both more than one node has memory for.
    my $begin = sub {
        my ($leader, $front) = @_;
        $nodes->{lab}->bad_line($leader, delay_ms => 5);
        my @on     = (logit_bias => {end_token() => -100});
        my @answer = ($nodes->under_way($front, %long, @on), $nodes->ask($front, %short, @on));
        $_->read_on(0.2) for @answer;
        ok(!grep({ $_->{ended} } @answer), 'one answer is under way and one waits, both more than one node has memory for');
        ok(eval { Lab::await { $_->read_on(0) for @answer; $load->($front) eq '1 run, 1 wait' && $nodes->status($front)->{load}{tokens_per_second} } 5, 'the leader told' }, 'as the node that took both says')
          or diag($load->($front));
        my $told = $nodes->status($front);
        is(scalar(grep { !$_ } $told->{load}{tokens_per_second}, @{$told->{plan}}{qw(measured_tps limited_by)}, $told->{time_ms}{network}), 0,
            'and how fast it goes, and what limits it') or diag(JSON::PP::encode_json({%$told{qw(load plan time_ms)}}));
        like(table($nodes, $front), qr/tokens\/s, limited by \w+, 1 running, 1 waiting$/m, 'as does `dair status` there');
        ok(eval { Lab::await { $_->read_on(0) for @answer; 2 == grep { $_->{disk_gbps} } @{$nodes->status($front)->{cluster}{nodes}} } 5, 'both say it' },
            'and how fast the disks are read') or diag($@);
        like(table($nodes, $front), qr/^dair-\w+ .* a token from the disk at .*, 61 C$/m, 'which `dair status` shows');
        ok(!grep({ $_->{ended} } @answer), 'while both are under way');
        $nodes->kill_node($leader);
        $nodes->{lab}->bad_line($leader);
        $nodes->serving(1, $front);
        ok(eval { Lab::await { $_->read_on(0) for @answer; $load->($front) eq '0 run, 2 wait' } 30, 'both wait' },
            'the leader dies: what does not fit waits') or diag($@, $load->($front), $nodes->trouble);
        is($nodes->status($front)->{node}{state}, 'DEGRADED', 'for the node that was lost');
        my @told = $nodes->log_of($front) =~ /a request of up to (\d+) tokens is taken, but .* the others may have memory for 256:/g;
        is("@told", 461, 'and it was told, of the first only, that it might come so');
        return @answer;
    };

    my $leader = $nodes->leader(1);
    my ($front) = grep { $_ != $leader } 1, 2;
    my @answer = $begin->($leader, $front);
    ok(!grep({ $_->{ended} } @answer), 'no answer ends');
    my $body  = JSON::PP::encode_json({prompt => $words x 60, max_tokens => 100});
    my $again = $nodes->{lab}->http($front, POST => '/v1/completions', seconds => 20, body => $body);
    is($again->{status}, 400, 'a new prompt that is too long now is the request\'s fault');
    like($again->{body}, qr/memory for 256 tokens of context/, 'and it is told so');
    is($nodes->text($front, prompt => 'A node', max_tokens => 8), $nodes->alone(prompt => 'A node', max_tokens => 8),
        'a short one is answered meanwhile');
    $nodes->start($leader);
    ok(eval { $nodes->serving(2, 1, 2) }, 'the node comes back') or diag($@);
    ok(Lab::gather(60, @answer), 'they go on') or diag($nodes->trouble);
    for my $k (0, 1) {
        my ($text, $why) = Nodes::whole_text($answer[$k]);
        is($text, $right[$k], 'and each is whole, the same text') or diag($why);
    }

    # It comes back without its model and leaves in good order: nothing is waited for any more.
    $leader = $nodes->leader(1);
    ($front) = grep { $_ != $leader } 1, 2;
    @answer = $begin->($leader, $front);
    $nodes->{of}{$leader} = {args => ['--models', scratch()]};
    $nodes->start($leader);
    Lab::await { 2 == @{$nodes->status($front)->{cluster}{nodes}} } 20, 'it is there again';
    $_->read_on(0) for @answer;
    ok(!grep({ $_->{ended} } @answer), 'a node that has lost its model comes: no answer ends');
    $nodes->end($leader);
    ok(Lab::gather(20, @answer), 'and it leaves in good order: both end') or diag($nodes->trouble);
    my ($text, $why) = Nodes::whole_text($answer[0]);
    like($why, qr/memory for 256 tokens of context, which the prompt \(\d+\) and the answer so far \([1-9]\d*\) fill/,
        'with the numbers');
    ($text, $why) = Nodes::whole_text($answer[1]);
    like($why, qr/memory for 256 tokens of prompt and answer: this answer ends early, after [1-9]\d* of up to 300/,
        'one where the context ended');
    unlike(join('', map { $_->{data} } @{$_->{events}}), qr/"finish_reason": ?"/, 'and does not say that it is whole') for @answer;
    $nodes->end($front);
}

# ---- nodes that hold the model together, and one that is left and cannot
{
    my $nodes = Nodes->new(lab => Lab->new(nodes => 2), memory => '8160K', args => ['--ctx', 256, '--kv', 'f32'],
        alone_args => ['--ctx', 256, '--kv', 'f32']);
    my %ask = (prompt => 'A node', max_tokens => 60);
    $nodes->start(1, 2)->serving(2, 1, 2);
    is_deeply($nodes->status(1)->{plan}{after_loss}, {context => 0, slots => 1}, 'two nodes, neither of which can work alone, say so');
    like(table($nodes, 1), qr/context 256, none if a node is lost$/m, 'as does `dair status`');
    my $leader = $nodes->leader(1);
    my ($front) = grep { $_ != $leader } 1, 2;
    $nodes->{lab}->bad_line($leader, delay_ms => 5);
    my $answer = $nodes->under_way($front, %ask);
    $nodes->kill_node($leader);
    $nodes->{lab}->bad_line($leader);
    ok(eval { Lab::await { $answer->read_on(0); $nodes->status($front)->{node}{state} eq 'FAILED' } 10, 'it has failed' },
        'the leader dies, and the other has no memory for the model') or diag($@, $nodes->trouble);
    my $again = $nodes->{lab}->http($front, POST => '/v1/completions', seconds => 10, body => JSON::PP::encode_json(\%ask));
    is($again->{status}, 503, 'a new request is refused');
    $answer->read_on(0);
    ok(!$answer->{ended}, 'the answer under way waits');
    like($nodes->log_of($front), qr/if a node is lost, the others may not have the memory to work/, 'as was told before');
    $nodes->start($leader);
    ok(eval { $nodes->serving(2, 1, 2) }, 'the node comes back') or diag($@);
    ok(Lab::gather(60, $answer), 'it goes on') or diag($nodes->trouble);
    my ($text, $why) = Nodes::whole_text($answer);
    is($text, $nodes->alone(%ask), 'with the same text') or diag($why);
    $nodes->end($_) for 1, 2;
}
done_testing;
