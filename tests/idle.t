#!/usr/bin/perl
# idle.t - who has nothing to do leaves the cores alone: a chat at its prompt after an answer, a node that
# serves nobody, one that waits in mid-answer for another; less than 2 % of a core each.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use IO::Socket::INET;
use JSON::PP ();
use POSIX 'mkfifo';
use Test::More;
use Time::HiRes qw(sleep time);

use constant MOST => 0.02;
my $dir = scratch();
my @room = ('--memory', is_sanitized() ? '512M' : '64M');

# CPU time of a process in seconds, all its threads together: exact where the kernel tells, else in ticks.
sub cpu {
    my ($pid) = @_;
    my @ns = map { (split ' ', read_file($_))[0] // () } glob "/proc/$pid/task/*/schedstat";
    if (@ns) { my $sum = 0; $sum += $_ for @ns; return $sum * 1e-9 }
    my @stat = split ' ', read_file("/proc/$pid/stat") =~ s/.*\) //r;
    return ($stat[11] + $stat[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# Which part of a core it takes, from when it has done what it had to do: none between two looks.
sub part {
    my ($pid, $seconds, $patience) = @_;
    my $last = -1;
    await($patience // 20, sub { my $was = $last; $last = cpu($pid); return $was == $last });
    my ($before, $began) = (cpu($pid), time);
    sleep $seconds;
    return (cpu($pid) - $before) / (time - $began);
}
sub is_little { my ($part, $name) = @_; cmp_ok($part, '<', MOST, sprintf '%s: %.2f %% of a core', $name, 100 * $part) }
sub idles { my ($pid, $seconds, $name) = @_; is_little(part($pid, $seconds), $name) }

# Until sub says so.
sub await {
    my ($seconds, $seen) = @_;
    for (my $until = time + $seconds; time < $until; sleep 0.05) { return 1 if $seen->() }
    return $seen->();
}
sub says { my ($run, $what) = @_; return await(30, sub { read_file($run->{err_file}->filename) =~ $what }) }

# ---- a conversation
# CPUs that each thread of a process may use, as the kernel lists them: of the first, then of the others.
sub cpus {
    my ($pid) = @_;
    my %list = map { m{task/(\d+)/} => read_file($_) =~ /^Cpus_allowed_list:\s*(\S+)/m ? $1 : '' } glob "/proc/$pid/task/*/status";
    my $first = delete $list{$pid};
    return ($first, values %list);
}

my ($all) = cpus($$);
for my $threads ([], ['--threads', 4], ['--threads', 2, '--pin', 'on'], ['--pin', 'off']) {
    my $fifo = join '-', "$dir/fifo", @$threads;
    mkfifo($fifo, 0600) or die "mkfifo: $!";
    my $chat = begin(['chat', '--temp', 0, @room, @$threads], from => $fifo);
    open my $to, '>', $fifo or die "$fifo: $!";
    $to->autoflush;
    print $to "What are you?\n";
    ok(says($chat, qr/tokens read.*answered/), 'chat answers');
    idles($chat->{pid}, 3, "chat @$threads at its prompt");
    my ($first, @others) = cpus($chat->{pid});
    is($first, $all, "chat @$threads: its first thread may run anywhere");
    is(scalar(grep { $_ ne $all } @others), 2, 'and each of its team on one CPU') if "@$threads" =~ /on$/ && $all =~ /\D/;
    is(scalar(grep { $_ ne $all } @others), 0, 'so may all others') if "@$threads" =~ /off$/;
    close $to;
    is(finish($chat, 20)->{status}, 0, 'and leaves') or diag($chat->{err});
}

# ---- nodes
my %taken;
sub free_port {
    for (1 .. 200) {
        my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 0, Listen => 1) or next;
        return $s->sockport if !$taken{$s->sockport}++;
    }
    BAIL_OUT('no free port');
}

my $n_node = 0;
sub node {
    my (@words) = @_;
    my ($port, $cluster) = (free_port(), free_port());
    my $run = begin(['node', '--interface', 'lo', '--discovery', 'off', '--state', "$dir/state" . ++$n_node, @room,
        '--threads', 2, '--port', $port, '--cluster-port', $cluster, @words]);
    @$run{qw(port cluster)} = ($port, $cluster);
    return $run;
}

sub ask {
    my ($run, $tokens) = @_;
    my $body = JSON::PP->new->encode({prompt => 'Once upon a time', max_tokens => $tokens, temperature => 0,
        stream => JSON::PP::true});
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $run->{port}, Timeout => 10) or die "connect: $!";
    print $s "POST /v1/completions HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ", length $body,
      "\r\n\r\n$body";
    return $s;
}

# Events of an answer up to the Nth, or to its end; what is read is added to $$text.
sub events {
    my ($s, $text, $n) = @_;
    local $SIG{ALRM} = sub { die "no answer in time: $$text\n" };
    alarm 60;
    while ((() = $$text =~ /^data: /mg) < $n) { sysread $s, $$text, 4096, length $$text or last }
    alarm 0;
    return scalar(() = $$text =~ /^data: /mg);
}

chomp(my $key = dair(['keygen'])->{out});
$ENV{DAIR_CLUSTER_KEY} = $key;
my $one = node();
ok(says($one, qr/READY: 1 node serves/), 'a node serves') or diag(read_file($one->{err_file}->filename));
my $text = '';
events(ask($one, 30), \$text, 1e9);
like($text, qr/data: \[DONE\]/, 'it answers');
idles($one->{pid}, 3, 'a node after an answer');

# Who reads experts for a team that is pinned is not.
my $moe = synth("$dir/moe.gguf", 'moe-small', 'q4_0');
my $least = JSON::PP::decode_json(dair(['plan', $moe, '--ctx', 1024, '--json'])->{out})->{least_bytes};
my $reads = node('--model', $moe, '--ctx', 1024, '--memory', $least + (12 << 20), '--pin', 'on');
ok(says($reads, qr/READY: 1 node serves/), 'a node whose experts stream serves') or diag(read_file($reads->{err_file}->filename));
my (undef, @threads) = cpus($reads->{pid});
is(scalar(grep { $_ ne $all } @threads), 2, 'only its team is pinned') if $all =~ /\D/;
kill 'TERM', $reads->{pid};
finish($reads, 20);

my $two = node('--peers', "127.0.0.1:$one->{cluster}");
ok(says($_, qr/READY: 2 nodes serve/), 'two nodes serve') or diag(read_file($_->{err_file}->filename)) for $one, $two;
idles($_->{pid}, 3, 'one of two nodes that serve nobody') for $one, $two;

# The other is frozen, for less than it takes to be given up: if it was on a machine that is busy, that is no
# answer to the question.
sub epochs { return scalar(() = read_file($_[0]{err_file}->filename) =~ /nodes? serves?\b/g) }
for my $case ([$one, $two, 'the first'], [$two, $one, 'the second']) {
    my ($waits, $frozen, $name) = @$case;
    my ($part, $was);
    for (1 .. 5) {
        ok(says($_, qr/2 nodes serve(?!.*nodes? serves?\b)/s), "$name: two serve") for $one, $two;
        $was = epochs($waits);
        my $s = ask($waits, 400);
        $text = '';
        events($s, \$text, 3);
        kill 'STOP', $frozen->{pid};
        $part = part($waits->{pid}, 0.5, 0.3);
        kill 'CONT', $frozen->{pid};
        my $before = events($s, \$text, 0);
        cmp_ok(events($s, \$text, 1e9), '>', $before, "$name: the answer was under way");
        like($text, qr/data: \[DONE\]/, "$name: it comes whole");
        last if $was == epochs($waits);
    }
    is(epochs($waits), $was, "$name: it waits for the other, and does not give it up");
    is_little($part, "$name waits for the other in mid-answer");
}
for my $run ($one, $two) {
    kill 'TERM', $run->{pid};
    is(finish($run, 20)->{status}, 0, 'it leaves') or diag($run->{err});
}
done_testing();
