# chaos.pl - rounds of killing nodes in the middle of answers: `kill.t` runs a few, `make soak` many.
# Each round asks node 1, kills others at a random token, or at a random time while the prompt is
# read, and compares the whole answer with that of one undisturbed process. A round counts only where
# the kill met the answer at work: node 1 had to hand it to another epoch (net.resubmitted rose).
#
# Node 1 is never killed and must not lead, as a leader stays as long as it lives: it has the highest
# id and starts after the others. Alone it leads all the same; so the rounds that leave it alone come
# last, and it starts anew after each.
package Chaos;
use strict;
use warnings;
use Dair ();
use Lab ();
use Nodes;
use Test::More;

# Who is killed: a node that does not lead; the one that leads; any, while the prompt is read; any,
# and another while the cluster recovers; all but node 1.
my @kinds  = qw(worker leader prefill second);
my $alone  = 'all-but-one';
my @warmth = (0, 0.8);    # temperatures

sub median { my @v = sort { $a <=> $b } @_; return @v ? $v[@v / 2] : 0 }
sub worst { return (sort { $b <=> $a } @_)[0] // 0 }
sub any { return $_[rand @_] }

# begin(NODES, N): all of them serve, and node 1 does not lead.
sub begin {
    my ($nodes, $n) = @_;
    mkdir "$nodes->{dir}/state-1" or die "$nodes->{dir}/state-1: $!";
    Dair::write_file("$nodes->{dir}/state-1/node-id", 'f' x 32 . "\n");
    $nodes->start(2 .. $n)->serving($n - 1, 2 .. $n);
    $nodes->start(1)->serving($n, 1 .. $n);
}

# rounds(NODES, COUNT, name =>, n =>, seed =>, ask => {..}, long => {..}): the nodes have begun. `long`
# is asked in prefill rounds: reading its prompt takes a while.
sub rounds {
    my ($nodes, $count, %o) = @_;
    srand $o{seed};
    my $last = int($count / 5 + 0.5) || 1;
    my @plan = ((map { $kinds[$_ % @kinds] } 0 .. $count - $last - 1), ($alone) x $last);
    my %next = map { $_ => int rand @warmth } @kinds, $alone;    # each kind alternates for itself
    my %calm = calm($nodes, %o);
    my %n    = map { $_ => 0 } qw(incomplete wrong unproved leader leader_missed rude again);
    my (%gap, @all, @size, @led, $restarted);
    for my $round (1 .. @plan) {
        my $kind = $plan[$round - 1];
        my $warm = $next{$kind}++ % @warmth;
        my $what = "round $round ($kind, temperature $warmth[$warm])";
        my $calm = $calm{$kind eq 'prefill' ? 'long' : 'ask'}[$warm];
        my $met;
        my $led = $kind eq 'worker' && @led < 10 && leads($nodes);
        until ($met) {
            my $r = eval { round($nodes, $kind, $calm, $o{n}, 0.8 * median(@all)) };
            my $why = $@;
            if (!$r) {
                diag("$what: $why");
                $n{incomplete}++;
            } elsif ($r->{text} ne $calm->{text}) {
                diag("$what: another text\n  got  $r->{text}\n  want $calm->{text}\n" . $nodes->trouble);
                $n{wrong}++;
            }
            my $whole = eval { restore($nodes, $o{n}, \%n, \$restarted) };
            if (!$whole) {
                diag("after $what: $@");
                $n{incomplete} += 10;
            }
            last if $n{incomplete} > 3 || $n{again} > 3 + $count / 5;
            $met = !$r || !$r->{missed};
            if (!$met) {
                note("$what: $r->{missed}, once more");
                $n{again}++;
            } elsif ($r) {
                push @{$gap{$kind}}, $r->{gap};
                push @all, $r->{gap};
                $n{unproved}++ if $r->{resubmitted} < 1;
                $n{leader} += $r->{leader_died};
                $n{leader_missed}++ if $kind eq 'leader' && !$r->{leader_died};
                note(sprintf '%s: killed %s%s at event %d of %d; %.2f s, resubmitted %d', $what, join('+', @{$r->{dead}}),
                    $r->{leader_died} ? ' (a leader)' : '', $r->{before}, $r->{events}, $r->{gap}, $r->{resubmitted});
            }
        }
        last if !$met;
        push @size, size($nodes, 1, @size) unless $restarted;
        my $lived = $led && $nodes->{node}{$led->{i}} && $nodes->pid($led->{i}) == $led->{pid};
        push @led, [$led, size($nodes, $led->{i}, $led)] if $lived;
    }
    is(scalar @all, $count, "$o{name}: $count rounds whose kill met an answer at work ($n{again} others were repeated)");
    is($n{incomplete}, 0, "$o{name}: every answer is whole");
    is($n{wrong}, 0, "$o{name}: and equal to that of one undisturbed process");
    is($n{unproved}, 0, "$o{name}: each was handed on to another epoch");
    is($n{leader_missed}, 0, "$o{name}: each leader round killed the node that led");
    my $least = grep { $_ eq 'leader' || $_ eq $alone } @plan;
    cmp_ok($n{leader}, '>=', $least, "$o{name}: $n{leader} of $count rounds killed the leader");
    is($n{rude}, 0, "$o{name}: node 1 ends in good order when asked to");
    for my $kind (grep { $gap{$_} } @kinds, $alone) {
        my @g = @{$gap{$kind}};
        note(sprintf '%s: %-11s median %.2f s, worst %.2f s of %d', $o{name}, $kind, median(@g), worst(@g), scalar @g);
    }
    cmp_ok(median(@all), '<=', 3, sprintf '%s: longest pause after a kill, median %.2f s, worst %.2f s of %d', $o{name},
        median(@all), worst(@all), scalar @all);
    flat($o{name}, @size);
    for my $what (qw(fds threads)) {
        my @more = map { $_->[1]{$what} - $_->[0]{$what} } @led;
        cmp_ok(median(@more), '<=', 0, "$o{name}: $what of a leader that lost a worker: as before (@more more)") if @more > 2;
    }
    return @all;
}

# What undisturbed answers are like, by question and temperature: {ask, text, events, first}. The
# texts are one process's; the cluster must say the same already now.
sub calm {
    my ($nodes, %o) = @_;
    my %calm;
    for my $which (qw(ask long)) {
        for my $temperature (@warmth) {
            my %ask    = (%{$o{$which}}, temperature => $temperature, seed => 7);
            my $text   = $nodes->alone(%ask);
            my $answer = $nodes->ask(1, %ask);
            Lab::gather(60, $answer) or die "no whole answer in time\n" . $nodes->trouble;
            is(Nodes::text_of($answer), $text, "$o{name}: undisturbed, $which, temperature $temperature");
            my @at = map { $_->{at} } @{$answer->{events}};
            push @{$calm{$which}}, {ask => \%ask, text => $text, events => scalar @at, first => $at[0]};
            note(sprintf '%d events, the first after %.3f s, the last after %.3f s', scalar @at, @at[0, -1]);
        }
    }
    # What is read for the first time takes longer than it will again.
    my ($least) = sort { $a <=> $b } map { $_->{first} } @{$calm{long}};
    $_->{first} = $least for @{$calm{long}};
    return %calm;
}

# round(NODES, KIND, CALM, N, RECOVERY): asks, kills (a second one within RECOVERY seconds), reads to
# the end. {missed: why it does not count, text, gap: the longest pause after the kill, resubmitted,
# dead: whom, leader_died, before: events that had come by then, events}. Dies without a whole answer.
sub round {
    my ($nodes, $kind, $calm, $n, $recovery) = @_;
    my $leader = $nodes->leader(1) // die "nobody leads\n";
    my $was    = $nodes->status(1) // die "node 1 does not answer\n";
    die "node 1 leads\n" if $leader == 1;
    my @others = 2 .. $n;
    my @dead =
        $kind eq 'leader' ? $leader
      : $kind eq 'worker' ? any(grep { $_ != $leader } @others)
      : $kind eq $alone   ? @others
      :                     any(@others);
    my %r      = (missed => '', leader_died => 0, dead => \@dead);
    my $answer = $nodes->ask(1, %{$calm->{ask}});
    my $end    = Lab::now() + 60;
    if ($kind eq 'prefill') {
        read_until($answer, $answer->{asked} + $calm->{first} * (0.15 + rand 0.65));
    } else {
        my $at = 1 + int rand $calm->{events} * 0.7;
        $answer->read_on(0.5) until $answer->{ended} || @{$answer->{events}} >= $at || Lab::now() > $end;
        die "no token in time\n" . $nodes->trouble unless $answer->{ended} || @{$answer->{events}};
    }
    1 while !$answer->{ended} && Lab::ready($answer->{socket}, 'read', 0) && $answer->read_on(0);
    $r{before} = @{$answer->{events}};
    $r{missed} = 'the answer had ended' if $answer->{ended};
    $r{missed} = 'the prompt was read'  if $kind eq 'prefill' && $r{before};
    my ($killed, $second);
    if (!$r{missed}) {
        $killed = strike($nodes, @dead);
        if ($kind eq 'second') {
            read_until($answer, $killed + rand $recovery);    # the time is the disturbance itself
            if ($answer->{ended}) {
                $r{missed} = 'the answer had ended before the second kill';
            } else {
                push @dead, any(grep { $_ != $dead[0] } @others);
                $second = strike($nodes, $dead[1]) - $answer->{asked};
            }
        }
    }
    my $whole = Lab::gather(90, $answer);
    die "no whole answer within 90 s of " . @{$answer->{events}} . " events\n" . $nodes->trouble unless $whole;
    die "the connection broke\n" . $nodes->trouble if $answer->{broken};
    die "HTTP status $answer->{status}: $answer->{body}\n" . $nodes->trouble if $answer->{status} != 200;
    $r{text}   = Nodes::text_of($answer);
    $r{events} = @{$answer->{events}};
    return \%r unless $killed;
    my $is = Lab::await { my $now = $nodes->status(1); $now && defined $now->{cluster}{leader} && $now } 10,
        'node 1 tells its status and whom it follows';
    $r{resubmitted} = $is->{net}{resubmitted} - $was->{net}{resubmitted};

    my @at    = ($killed - $answer->{asked}, map { $_->{at} } @{$answer->{events}}[$r{before} .. $r{events} - 1]);
    my @pause = map { $at[$_] - $at[$_ - 1] } 1 .. $#at;
    my ($longest) = sort { $pause[$b] <=> $pause[$a] } 0 .. $#pause;
    $r{gap} = $kind eq 'prefill' ? $pause[0] : $pause[$longest];
    # It led when it was killed, and the one that node 1 follows now is another.
    $r{leader_died} = 1 if grep { $_ == $leader } @dead and $is->{cluster}{leader} ne $was->{cluster}{leader};
    # Tokens may have been under way to us, or the request to the leader.
    my $under_way = 0.02;
    if (defined $second && grep { $at[0] + $under_way < $_ && $_ < $second } @at) {
        $r{missed} ||= 'the answer had gone on before the second kill';
    }
    if ($kind eq 'prefill') {
        $r{missed} ||= 'the prompt had been read'                if $longest;
        $r{missed} ||= 'the request was not yet with the leader' if !$r{resubmitted};
    } elsif (!$r{resubmitted} && $r{gap} < $under_way) {
        $r{missed} ||= 'all tokens were there already';
    }
    return \%r;
}

# Reads what comes, as it comes, until that time.
sub read_until {
    my ($answer, $time) = @_;
    while (!$answer->{ended} && (my $left = $time - Lab::now()) > 0) { $answer->read_on($left) }
}

# Kills all at once and does not wait for their ends; the time just before. restore() takes them away.
sub strike {
    my ($nodes, @i) = @_;
    my @pid = map { -$nodes->pid($_) } @i;
    my $now = Lab::now();
    kill('KILL', @pid) == @pid or die "kill @i: $!\n";
    $nodes->{node}{$_}{struck} = 1 for @i;
    return $now;
}

# All serve again, and node 1 does not lead.
sub restore {
    my ($nodes, $n, $count, $restarted) = @_;
    $nodes->kill_node($_) for grep { $nodes->{node}{$_}{struck} } $nodes->running;
    my @gone = grep { !$nodes->{node}{$_} } 2 .. $n;
    renew($nodes, $count, $restarted) if @gone == $n - 1;
    $nodes->start(@gone);
    $nodes->serving($n - 1, 2 .. $n) if !$nodes->{node}{1};
    $nodes->start(1) if !$nodes->{node}{1};
    $nodes->serving($n, 1 .. $n);
    # By the rules it may have come to lead if none of the others was to be had for a moment.
    if (($nodes->leader(1) // 0) == 1) {
        diag('node 1 leads though it was not alone');
        renew($nodes, $count, $restarted);
        $nodes->serving($n - 1, 2 .. $n);
        $nodes->start(1)->serving($n, 1 .. $n);
    }
    return 1;
}

# Node 1 is asked to end.
sub renew {
    my ($nodes, $count, $restarted) = @_;
    my $p      = $nodes->{node}{1};
    my $status = $nodes->end(1);
    $$restarted = 1;
    return if $status == 0;
    diag("node 1 ended with $status: " . $nodes->{lab}->err($p));
    $count->{rude}++;
}

# The node that leads, and what it holds.
sub leads {
    my $nodes = shift;
    my $i = eval { $nodes->leader(1) } // return;
    return {i => $i, pid => $nodes->pid($i), %{$nodes->size($i)}};
}

# What node I holds. The channels of an epoch outlive it for two seconds: waits until the files are as
# few as after an earlier round, or so long that all of those are gone.
sub size {
    my ($nodes, $i, @before) = @_;
    my ($least) = sort { $a <=> $b } map { $_->{fds} } @before;
    my $size    = $nodes->size($i);
    eval {
        Lab::await {
            my $is = $nodes->size($i);
            $size = $is if $is->{fds} < $size->{fds};
            defined $least && $size->{fds} <= $least;
        } 4;
    };
    return $size;
}

# Files, threads and memory of the node that lives through all rounds: the later ones as the earlier.
sub flat {
    my ($name, @size) = @_;
    my $held = join ', ', map { "$_->{fds} " . ($_->{rss} >> 10) } @size;
    note("$name: files and KiB after each round before node 1 started anew: $held");
    return note("$name: too few to tell what grows") if @size < 5;
    my $some  = @size < 14 ? int(@size / 2) : 7;
    my @early = @size[0 .. $some - 1];
    my @late  = @size[-$some .. -1];
    for my $what (qw(fds threads rss)) {
        my ($a, $b) = map { median(map { $_->{$what} } @$_) } \@early, \@late;
        my $most = $what eq 'rss' ? $a * 1.1 + (1 << 20) : $what eq 'fds' ? $a + 1 : $a;
        cmp_ok($b, '<=', $most, "$name: $what stay as they are ($a, later $b)");
    }
}

1;
