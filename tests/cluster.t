#!/usr/bin/perl
# cluster.t - nodes that find each other: how soon they serve together, that the text is the one of a
# single node whatever the network is like, and what they do when it falls apart and comes together.
# Deaths in the middle of answers are kill.t's.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Lab 'isolated';
use Dair;
use Nodes;
use Socket;
use Test::More;

plan skip_all => 'a sanitized build is too slow for this' if is_sanitized();
my %ask = (prompt => 'A node', max_tokens => 24);

sub cluster {
    my ($n, %o) = @_;
    return Nodes->new(lab => Lab->new(nodes => $n), memory => '32M', %o);
}
my $right;
sub same { my ($nodes, $i, $name) = @_; $right //= $nodes->alone(%ask); is($nodes->text($i, %ask), $right, $name) }

# ---- found by multicast, with nothing configured but the key
for my $n (1 .. 5) {
    my $nodes = cluster($n);
    $nodes->start(1 .. $n);
    my $begin = now();
    my @status = eval { $nodes->serving($n, 1 .. $n) };
    my $took = now() - $begin;
    ok(scalar @status, sprintf '%d node%s: serving %.1f s after the last start', $n, $n > 1 ? 's' : '', $took) or diag($@);
    next unless @status;
    cmp_ok($took, '<=', 5, '4 nodes: serving within 5 s of the last start') if $n == 4;
    is($status[0]{node}{state}, 'READY', "$n: READY");
    same($nodes, $_, "$n: the text from node $_") for $n > 1 ? (1, $n) : 1;
    is($nodes->end($_), 0, "$n: node $_ ends in good order") for reverse 1 .. $n;
}

# Asks from node I's place for NAME's records of TYPE, as any resolver does (RFC 6762, 6.7): the replies.
sub resolve {
    my ($nodes, $i, $type, $name) = @_;
    my $lab    = $nodes->{lab};
    my $socket = $lab->on($i, sub { socket my $s, PF_INET, SOCK_DGRAM, 0 or die "socket: $!"; $s });
    my $labels = join '', map { pack 'C/a*', $_ } split(/\./, $name), '';
    my $query  = pack 'n6 a* n2', 7, 0, 1, 0, 0, 0, $labels, $type, 1;
    setsockopt $socket, 0, 32, inet_aton($lab->address($i)) or die "IP_MULTICAST_IF: $!";
    send $socket, $query, 0, pack_sockaddr_in(5353, inet_aton('224.0.0.251')) or die "send: $!";
    my @reply;
    while (Lab::ready($socket, 'read', 0.5)) { recv $socket, my $reply, 9000, 0; push @reply, $reply }
    return @reply;
}
sub epochs_told {
    my %epoch = map { $_ => 1 } map { /ep=(\d+)/g } resolve(@_, 12, '_dair._tcp.local');
    return join ' ', sort keys %epoch;
}
# IPv4 addresses of NAME: in each record type A, class IN (perhaps with the flush bit), TTL, 4 bytes.
sub addresses {
    my ($nodes, $i, $name) = @_;
    my %at = map { inet_ntoa($_) => 1 } map { /\x00\x01[\x00\x80]\x01.{4}\x00\x04(.{4})/gs } resolve($nodes, $i, 1, $name);
    return join ' ', sort keys %at;
}
sub all_tell {
    my ($nodes, $i) = @_;
    my $is = $nodes->status($i)->{cluster}{epoch};
    return eval { await { epochs_told($nodes, $i) eq $is } 15, "epoch $is in all TXT records"; 1 };
}

# ---- without a key: each a node for itself, which people find by its name
{
    my $nodes = cluster(2, key => '');
    my @status = ($nodes->start(1)->serving(1, 1), $nodes->start(2)->serving(1, 2));
    is($_->{node}{state}, 'ALONE', 'without a key it is ALONE') for @status;
    my @at = map { $nodes->{lab}->address($_) } 1, 2;
    for my $i (1, 2) {
        my $name = "$status[$i - 1]{node}{name}.local";
        ok(eval { await { addresses($nodes, 3 - $i, $name) eq $at[$i - 1] } 15; 1 }, 'it is found by its own name') or diag($name, $nodes->trouble);
    }
    ok(eval { await { join(' ', sort map { addresses($nodes, 1, $_) } 'dair.local', 'dair-2.local') eq join ' ', sort @at } 20; 1 },
        'one is dair.local, the other dair-2.local') or diag(map({ addresses($nodes, 1, $_) . "\n" } 'dair.local', 'dair-2.local'), $nodes->trouble);
    is(epochs_told($nodes, 1), '', 'and neither offers itself to nodes');
}

# ---- a node more, and one with another key
{
    my $nodes = cluster(4);
    $nodes->start(1, 2)->serving(2, 1, 2);
    my $begin = now();
    $nodes->start(3);
    ok(eval { $nodes->serving(3, 1 .. 3) }, sprintf 'a third node works %.1f s after its start', now() - $begin) or diag($@);
    same($nodes, 3, 'and answers');
    ok(all_tell($nodes, 1), 'the TXT records tell the new epoch') or diag(epochs_told($nodes, 1), $@);
    $nodes->{of}{4} = {key => dair(['keygen'])->{out} =~ s/\s+\z//r};
    $nodes->start(4)->serving(1, 4);
    is(scalar @{$nodes->status(4)->{cluster}{nodes}}, 1, 'one with another key is a cluster of its own');
    is(scalar @{$nodes->status(1)->{cluster}{nodes}}, 3, 'and the others are three');
}

# ---- peers by name, one of which the resolver does not know yet: a service starts before its network
{
    my $hosts = scratch() . '/hosts';
    my $write = sub { open my $h, '>', $hosts or die "$hosts: $!"; print $h "127.0.0.1 localhost\n", @_; close $h };
    $write->();
    system('mount', '--bind', $hosts, '/etc/hosts') == 0 or die "mount: $?\n";
    my $nodes = cluster(2);
    $nodes->{of}{$_} = {args => ['--discovery', 'off', '--peers', 'first.test:9998,second.test:9998']} for 1, 2;
    $nodes->start(1, 2)->serving(1, 1);
    ok(eval { await { $nodes->log_of(1) =~ /second\.test:9998 cannot be resolved yet/ } 15; 1 }, 'a name that nobody knows is said, and the node serves') or diag($nodes->trouble);
    $write->(map { $nodes->{lab}->address($_) . ' ' . ('first', 'second')[$_ - 1] . ".test\n" } 1, 2);
    ok(eval { $nodes->serving(2, 1, 2); 1 }, 'once the name is known the two work together') or diag($@, $nodes->trouble);
    ok(eval { await { $nodes->log_of(2) =~ /peer second\.test:9998 is this node itself/ } 15; 1 }, 'a node finds its own name in a list for all') or diag($nodes->trouble);
    system('umount', '/etc/hosts') == 0 or die "umount: $?\n";
}

# ---- falling apart and coming together, with an answer under way at every node
# Node 2 is a little away until the cable is cut: an answer takes seconds.
my %long = (prompt => 'A node', max_tokens => 80);
my $right_long;

sub ask_all {
    my ($nodes, @i) = @_;
    $nodes->{lab}->bad_line(2, delay_ms => 2);
    my %answer = map { $_ => $nodes->ask($_, %long) } @i;
    eval { await { $_->read_on(0) for values %answer; 0 == grep { @{$_->{events}} < 3 && !$_->{ended} } values %answer } 30, 'answers begin' }
      or diag($@, $nodes->trouble);
    return %answer;
}
sub complete {
    my ($name, $answer, $seconds, @i) = @_;
    $right_long //= Nodes->new(lab => undef, key => 'none')->alone(%long);
    Lab::gather($seconds, map { $answer->{$_} } @i);
    for my $i (@i) {
        my ($text, $why) = Nodes::whole_text($answer->{$i});
        is($text, $right_long, "$name: what was asked of node $i before is whole, the same text") or diag($why);
    }
}
sub unfinished {
    my ($nodes, $answer) = @_;
    my $n = grep { $_->read_on(0); !$_->{ended} } values %$answer;
    $nodes->{lab}->bad_line(2);
    return $n;
}

{
    my $nodes = cluster(4, memory => '64M');    # room for four answers at one time
    $nodes->start(1 .. 4)->serving(4, 1 .. 4);
    my $lab = $nodes->{lab};
    my %answer = ask_all($nodes, 1 .. 4);
    my $begin  = now();
    $lab->cut([1, 2], [3, 4]);
    is(unfinished($nodes, \%answer), 4, 'cut in two with four answers under way');
    my $halves = eval { $nodes->serving(2, 1, 2) && $nodes->serving(2, 3, 4) };
    ok($halves, sprintf 'each half serves after %.1f s', now() - $begin) or diag($@);
    complete('in two', \%answer, 30, 1 .. 4);
    if ($halves) { same($nodes, $_, "the half of node $_ answers") for 1, 4 }
    $begin = now();
    $lab->heal();
    my $whole = eval { $nodes->serving(4, 1 .. 4) };
    ok($whole, sprintf 'healed: one cluster of four after %.1f s', now() - $begin) or diag($@);
    same($nodes, 2, 'which answers') if $whole;

    # One is cut off for good: the others go on, and so does it.
    my $epoch = $nodes->status(1)->{cluster}{epoch};
    %answer = ask_all($nodes, 1 .. 4);
    $begin  = now();
    $lab->cut([4], [1 .. 3]);
    is(unfinished($nodes, \%answer), 4, 'one cut off with four answers under way');
    my @rest = eval { $nodes->serving(3, 1 .. 3) };
    ok(scalar @rest, sprintf 'the other three serve after %.1f s', now() - $begin) or diag($@);
    my @lone = eval { $nodes->serving(1, 4) };
    ok(scalar @lone, sprintf 'and it by itself after %.1f s', now() - $begin) or diag($@);
    complete('one cut off', \%answer, 30, 1 .. 4);
    if (@rest && @lone) {
        cmp_ok($rest[0]{cluster}{epoch}, '>', $epoch, 'in a new epoch');
        is($rest[0]{node}{state}, 'DEGRADED', 'the three say that one is missing');
        same($nodes, $_, "cut off or not, node $_ answers") for 1, 4;
    }
    $lab->heal();
    ok(eval { $nodes->serving(4, 1 .. 4) }, 'healed') or diag($@);

    # What 1 says does not come to 3, though 3 is heard: such a pair does not work together.
    %answer = ask_all($nodes, 1 .. 4);
    $begin  = now();
    $lab->cut_one_way([1], [3]);
    is(unfinished($nodes, \%answer), 4, 'one direction cut with four answers under way');
    my $out;    # who is left out
    my $some = eval {
        await {
            my %s = map { $_ => $nodes->status($_) // return 0 } 1 .. 4;
            my @working = map { my $i = $_; scalar grep { $_->{working} } @{$s{$i}{cluster}{nodes}} } 1 .. 4;
            for my $left (1, 3) {
                my @rest = grep { $_ != $left } 1 .. 4;
                next if grep { $s{$_}{node}{state} ne 'DEGRADED' || $working[$_ - 1] != 3 } @rest;
                $out = $left;
            }
            $out;
        } 30, 'a cluster without one of the two';
    };
    ok($some, sprintf 'a link that works one way counts as down: the other three serve after %.1f s', now() - $begin)
      or diag($@, $nodes->trouble);
    if ($some) {
        my $settled = $nodes->status(2)->{cluster}{epoch};
        complete('one direction', \%answer, 30, grep { $_ != $out } 1 .. 4);
        same($nodes, 2, 'they answer');
        is($nodes->status(2)->{cluster}{epoch}, $settled, 'all of it in one epoch');
        my $body   = '{"prompt": "A node", "max_tokens": 4}';
        my $answer = eval { $lab->http($out, POST => '/v1/completions', seconds => 20, body => $body) };
        ok($answer && $answer->{status} =~ /^(?:200|503)$/, "the one left out ($out) answers or refuses, soon")
          or diag($answer ? $answer->{body} : $@);
    }
    $lab->heal();
    ok(eval { $nodes->serving(4, 1 .. 4) }, 'healed') or diag($@);
    complete('one direction, healed', \%answer, 30, $out) if $some;
    $nodes->end($_) for 1 .. 4;
}

# ---- one configured name for all: mDNS gives all but one another, and that is what everybody calls them
{
    my $dir   = scratch();
    my $nodes = cluster(3, args => ['--hostname', 'fifteen-letters']);
    $nodes->{of}{3} = {model => synth("$dir/other.gguf", 'moe-tiny', 'q8_0'), memory => '64M'};
    $nodes->start(1 .. 3)->serving(2, 1, 2);
    my $names = sub { my $s = $nodes->status(shift) // return ''; join ' ', sort map { "$_->{id} $_->{name}" } @{$s->{cluster}{nodes}} };
    my $agree = sub {
        my @said = map { $names->($_) } 1 .. 3;
        my %name = map { $_ => 1 } $said[0] =~ /\b(fifteen-letters(?:-\d)?)(?: |\z)/g;
        return 3 == keys %name && 1 == keys %{{map { $_ => 1 } @said}};
    };
    ok(eval { await { $agree->() } 15, 'three names' }, 'three nodes with one name: each gets its own, and all know it')
      or diag(map { $names->($_) . "\n" } 1 .. 3);
    for my $i (1 .. 3) {
        my $name = $nodes->status($i)->{node}{name};
        my ($id) = map { $_->{name} eq $name ? $_->{id} : () } @{$nodes->status($i % 3 + 1)->{cluster}{nodes}};
        is($id, $nodes->status($i)->{node}{id}, "$name is node $i, also for another");
    }
    $nodes->end($_) for 1 .. 3;
}

# ---- without a model, and with another one
{
    my $dir   = scratch();
    my $other = synth("$dir/other.gguf", 'moe-tiny', 'q8_0');
    mkdir "$dir/empty" or die "$dir/empty: $!";
    my $nodes = cluster(4);
    $nodes->{of}{3} = {args => ['--models', "$dir/empty"]};
    $nodes->{of}{4} = {model => $other, memory => '64M'};
    $nodes->start(1 .. 4);
    ok(eval { $nodes->serving(2, 1, 2) }, 'of four nodes the two with the same model serve') or diag($@);
    my $name = {map { $_ => ($nodes->status($_) // {})->{node}{name} // "?" } 1 .. 4};
    my $seen = eval { await { 4 == @{$nodes->status(1)->{cluster}{nodes}} } 10, 'node 1 knows four' };
    ok($seen, 'they know all four') or diag($@);
    my %role = map { $_->{name} => ($_->{working} ? 'works' : $_->{has_model} ? 'model' : 'none') }
      @{$nodes->status(1)->{cluster}{nodes}};
    is_deeply(\%role, {$name->{1} => 'works', $name->{2} => 'works', $name->{3} => 'none', $name->{4} => 'model'},
        'the one without a model and the one with another take no part');
    same($nodes, $_, "node $_ answers") for 1, 2;
    my $none = eval { $nodes->{lab}->http(3, POST => '/v1/completions', body => '{"prompt": "A node"}', seconds => 20) };
    is($none ? $none->{status} : $@, 503, 'the one without a model refuses a request');
    like($none ? $none->{body} : '', qr/"this node has no model/, 'and says why');
    like($nodes->log_of(3), qr/no \.gguf or \.m file in .*no model/, 'it says that it has no model when it starts');
    for my $i (1, 2) {
        my $log = $nodes->log_of($i);
        is(scalar(() = $log =~ /\Q$name->{3}\E has no model/g), 1, "node $i says so, once");
        my @said = grep { /do not work together/ } split /\n/, $log;
        is(scalar @said, 1, "node $i says that models differ, once");
        my ($ours, $theirs) = map { $nodes->status($_)->{model} } $i, 4;
        like($said[0] // '', qr/\Q$name->{4}\E has the model \Q$theirs->{name}\E \($theirs->{fingerprint}\), \Q$name->{$i}\E has \Q$ours->{name}\E \($ours->{fingerprint}\)/,
            'and names both');
    }
    like($nodes->log_of(4), qr/dair demo.*do not work together/, 'so does the one with another');
    unlike($nodes->log_of($_), qr/is not connected any more/, "node $_ keeps all its connections") for 1 .. 4;
    my $alone = Nodes->new(lab => undef, key => 'none', model => $other);
    my %few   = (prompt => 'one two', max_tokens => 6);
    ok(eval { $nodes->serving(1, 4) }, 'it serves its own by itself') or diag($@);
    is(eval { $nodes->text(4, %few) }, $alone->alone(%few), 'with the right text') or diag($@);
    $nodes->end($_) for 1 .. 4;
}

# ---- lines that are slow, far or bad
{
    my $nodes = cluster(3);
    $nodes->start(1 .. 3)->serving(3, 1 .. 3);
    my $lab = $nodes->{lab};
    my $was = $lab->bytes(2);
    same($nodes, 2, 'a good line');
    my $is = $lab->bytes(2);
    note(sprintf 'node 2 sent %d bytes and received %d for %d tokens', $is->{sent} - $was->{sent},
        $is->{received} - $was->{received}, $ask{max_tokens});
    $lab->rate($_, '10mbit') for 1 .. 3;
    my $begin = now();
    same($nodes, 2, '10 Mbit/s');
    note(sprintf '%.1f s', now() - $begin);
    $lab->rate($_) for 1 .. 3;
    $lab->bad_line(2, delay_ms => 5, jitter_ms => 5);
    $begin = now();
    same($nodes, 1, 'one node 5 to 10 ms away');
    note(sprintf '%.1f s', now() - $begin);
    $lab->bad_line(2, loss_percent => 3);
    $begin = now();
    same($nodes, 1, 'three frames in a hundred lost');
    my $line = $lab->line_counts(2);
    note(sprintf '%.1f s, frames lost: %d and %d', now() - $begin, $line->{up}{lost}, $line->{down}{lost});
    ok($line->{up}{lost} + $line->{down}{lost} > 0, 'some were');
    # Far and bad at once, for a few tokens.
    my %few = (prompt => 'A node', max_tokens => 8);
    $lab->bad_line(2, loss_percent => 5, delay_ms => 20);
    $begin = now();
    is(eval { $nodes->text(1, %few) }, $nodes->alone(%few), '5 frames in 100 lost and 20 ms away') or diag($@);
    my $bad = $lab->line_counts(2);
    my $lost = $bad->{up}{lost} + $bad->{down}{lost} - $line->{up}{lost} - $line->{down}{lost};
    cmp_ok($lost, '>', 0, sprintf '%.1f s, frames lost: %d', now() - $begin, $lost);
    $lab->bad_line(2);
    ok(eval { $nodes->serving(3, 1 .. 3) }, 'and it is a cluster of three still, or again') or diag($@);
}
done_testing;
