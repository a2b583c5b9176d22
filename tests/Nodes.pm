# Nodes.pm - dair nodes in a laboratory (Lab.pm): starting them, asking them, ending them.
#
#   my $nodes = Nodes->new(lab => $lab, model => 'x.gguf', memory => '64M');
#   $nodes->start(1 .. 3);
#   $nodes->serving(3, 1 .. 3);                        # waits until these three serve together
#   my $text = $nodes->text(1, prompt => 'Once', max_tokens => 20);
package Nodes;
use strict;
use warnings;
use Carp qw(croak);
use Dair;
use JSON::PP ();
use Lab ();

my $json = JSON::PP->new->utf8->canonical;

# new(lab =>, model => FILE or nothing for the demo model, memory =>, args => [more words], key =>)
sub new {
    my ($class, %o) = @_;
    my $self = bless {memory => '48M', args => [], %o, node => {}, id => {}}, $class;
    $self->{dir} //= scratch();
    chomp($self->{key} //= dair(['keygen'])->{out});
    return $self;
}

# start(NODE..): `dair node` in each. Options of one: $nodes->{of}{NODE} = {model, memory, args, key,
# prefix, bin, share, env, threads, state}.
sub start {
    my ($self, @i) = @_;
    $self->begin_node($_) for @i;
    return $self;
}

sub begin_node {
    my ($self, $i) = @_;
    my $lab = $self->{lab};
    my %o   = (%$self, %{$self->{of}{$i} // {}});
    my $p   = $lab->start($i, [@{$o{prefix} // []}, $o{bin} // $dair, 'node',
        defined $o{model} ? ($o{model}) : (), '--state', "$self->{dir}/" . ($o{state} // "state-$i"),
        '--memory', $o{memory}, '--threads', $o{threads} // 1, '--interface', $lab->interface,
        '--port', $lab->port($i, 8080), '--cluster-port', $lab->port($i, 9998), '--share', $o{share} // 'even', @{$o{args}}],
        env => {DAIR_CLUSTER_KEY => $o{key}, %{$o{env} // {}}});
    return $self->{node}{$i} = $p;
}

sub pid { my ($self, $i) = @_; return $self->{node}{$i}{pid} }
sub log_of { my ($self, $i) = @_; return $self->{lab}->err($self->{node}{$i}) }
sub kill_node { my ($self, $i) = @_; my $p = delete $self->{node}{$i} or return; return $self->{lab}->kill_now($p) }
sub end { my ($self, $i, $signal) = @_; my $p = delete $self->{node}{$i} or return; return $self->{lab}->stop($p, $signal // 'TERM', 20) }
sub running { return sort { $a <=> $b } keys %{$_[0]{node}} }

# Holds node I's engine still, the thread that `top -H` calls so, as a disk that hangs would; until the handle
# is closed.
sub freeze {
    my ($self, $i) = @_;
    my ($engine) = grep { Lab::slurp("$_/comm") eq "dair-engine\n" } glob '/proc/' . $self->pid($i) . '/task/*';
    my $tid = $engine =~ s{.*/}{}r;
    open my $hold, '|-', "$Dair::build/tests/lab_freeze $tid >/dev/null" or croak "lab_freeze: $!";
    Lab::await { Lab::slurp("$engine/stat") =~ /\) t / } 10, 'it is held';
    return $hold;
}

# /status.json of node I; undef while it does not answer.
sub status {
    my ($self, $i) = @_;
    my $answer = eval { $self->{lab}->http($i, GET => '/status.json', seconds => 3) } or return;
    return $answer->{status} == 200 ? $json->decode($answer->{body}) : undef;
}

# Waits until the given nodes all serve in one epoch of N nodes; returns their statuses.
sub serving {
    my ($self, $n, @i) = @_;
    my @status;
    my $seen = sub {
        @status = map { $self->status($_) // return 0 } @i;
        my %epoch = map { ("$_->{cluster}{epoch} " . ($_->{cluster}{leader} // "none") => 1) } @status;
        return 0 if 1 != keys %epoch;
        for my $s (@status) {
            return 0 unless $s->{node}{state} =~ /^(?:READY|DEGRADED|ALONE)$/;
            return 0 unless $n == grep { $_->{working} } @{$s->{cluster}{nodes}};
        }
        return 1;
    };
    eval { Lab::await { $seen->() } $self->{patience} // 30, "$n nodes serve" } or croak $@ . $self->trouble;
    return @status;
}

# What the nodes said last, for a test that failed.
sub trouble {
    my $self = shift;
    return join '', map { my @l = split /^/, $self->log_of($_); "--- node $_\n" . join '', @l > 25 ? @l[-25 .. -1] : @l } $self->running;
}

# The number of the node that leads.
sub leader {
    my ($self, $i) = @_;
    my $s = $self->status($i) // croak "node $i does not answer";
    for my $n ($self->running) {
        my $id = $self->{id}{$n} //= ($self->status($n) // next)->{node}{id};
        return $n if $id eq $s->{cluster}{leader};
    }
    return;
}

# ask(NODE, prompt => .., ...): an answer in progress as events; text(NODE, ...): the whole text.
sub ask {
    my ($self, $i, %o) = @_;
    my $body = $json->encode({max_tokens => 20, temperature => 0, %o, stream => JSON::PP::true});
    return $self->{lab}->stream($i, POST => '/v1/completions', body => $body, seconds => $self->{patience} // 60);
}

# ask(..), and N of its events (3) have come: an answer under way.
sub under_way {
    my ($self, $i, %o) = @_;
    my $n      = delete $o{events} // 3;
    my $answer = $self->ask($i, %o);
    my $end    = Lab::now() + ($self->{patience} // 60);
    while (@{$answer->{events}} < $n && !$answer->{ended}) {
        croak "no token in time\n" . $self->trouble if Lab::now() > $end;
        $answer->read_on(0.2);
    }
    return $answer;
}

# The text of an answer that has ended; undef and a word why where it is none.
sub whole_text {
    my $answer = shift;
    return (undef, 'it has not ended') unless $answer->{ended};
    return (undef, 'the connection broke') if $answer->{broken};
    return (undef, "HTTP status $answer->{status}: $answer->{body}") if $answer->{status} != 200;
    my $text = eval { text_of($answer) };
    return ($text, $@);
}

# The longest time without an event of an answer, from its second one on, in seconds.
sub longest_gap {
    my @at = map { $_->{at} } @{$_[0]{events}};
    my $most = 0;
    for (1 .. $#at) { $most = $at[$_] - $at[$_ - 1] if $at[$_] - $at[$_ - 1] > $most }
    return $most;
}

sub text_of {
    my $answer = shift;
    my $text   = '';
    for my $event (@{$answer->{events}}) {
        next if $event->{data} eq '[DONE]';
        my $part = $json->decode($event->{data});
        croak "the answer ends with: $part->{error}{message}" if $part->{error};
        $text .= $part->{choices}[0]{text} // '';
    }
    return $text;
}

sub text {
    my ($self, $i, %o) = @_;
    my $answer = $self->ask($i, %o);
    Lab::gather($self->{patience} // 60, $answer) or croak "no whole answer in time\n" . $self->trouble;
    croak "HTTP status $answer->{status}: $answer->{body}" if $answer->{status} != 200;
    return text_of($answer);
}

# The same from one process: what every cluster must say. Options as for ask.
sub alone {
    my ($self, %o) = @_;
    my $run = dair(['run', defined $self->{model} ? $self->{model} : (), '--raw', '-p', $o{prompt}, '-n', $o{max_tokens} // 20,
        '--temp', $o{temperature} // 0, '--seed', $o{seed} // 0, '--threads', 1, '--json', @{$self->{alone_args} // []}],
        seconds => 300);
    croak "dair run: $run->{status} $run->{err}" if $run->{status} ne '0';
    return join '', map { $_->{text} // '' } grep { defined $_->{id} } objects($run->{out});
}

# {rss, fds, threads} of a node's process.
sub size {
    my ($self, $i) = @_;
    my $pid    = $self->{node}{$i}{program} // $self->pid($i);
    my $status = Lab::slurp("/proc/$pid/status");
    my ($rss)     = $status =~ /^VmRSS:\s+(\d+)/m;
    my ($peak)    = $status =~ /^VmHWM:\s+(\d+)/m;
    my ($threads) = $status =~ /^Threads:\s+(\d+)/m;
    my $fds = () = glob "/proc/$pid/fd/*";
    return {rss => ($rss // 0) * 1024, peak => ($peak // 0) * 1024, fds => $fds, threads => $threads};
}

1;
