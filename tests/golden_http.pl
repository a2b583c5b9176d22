#!/usr/bin/perl
# golden_http.pl DIR: the requests that others recorded (DIR/F-api/*transcripts*.json), sent to a real node on
# loopback that serves the same model; one verdict a request.
#
# Compared: the status; of completions their form, their text where it is greedy and the weights are floats, and
# their usage; of refusals that there is a sentence. A path that the node does not have counts as unsupported,
# unless tests/supported.txt lists it (`http /health`), and so does a request for what it says it cannot do. Where
# it is right to differ: a request without Host is refused (RFC 9112), who recorded answered 5xx to a wrong request
# (ours: 4xx), left `echo` out and took an empty prompt (ours: 400); and whoever is cut off for nonsense may miss the reply.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Golden;
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

my $dir = shift or die "usage: golden_http.pl DIR\n";
my $build = $ENV{DAIR_BUILD} || 'build/x86_64';
my $dair = $ENV{DAIR_BIN} || "$build/dair";
my $tmp = tempdir(CLEANUP => 1);
my %listed = listed('http');
my ($passed, $failed, $unsupported) = (0, 0, 0);
my ($port, $pid);
delete $ENV{DAIR_CLUSTER_KEY};
$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit 130 } for qw(INT TERM HUP);

# --- the recorded

# A byte that is no UTF-8 stands there as half of a surrogate pair (Python's way), which no reader takes: it
# becomes a character of the private planes, and bytes() makes it the byte again.
sub transcripts {
    my $text = slurp(shift) // return;
    $text =~ s/(?<!\\)(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][cC]([89a-fA-F][0-9a-fA-F])/\\udbc0\\udc$1/g;
    return eval { decode_json($text) };
}

sub bytes {
    my $s = shift;
    utf8::encode($s);
    return $s =~ s/\xf4\x80([\x82\x83][\x80-\xbf])/my $c = "\xf4\x80$1"; utf8::decode($c); chr(ord($c) - 0x100000)/gre;
}

# Status, head, body of a reply. Bodies were recorded as they came or with their chunks already joined.
sub parsed {
    my ($head, $body) = split /\r\n\r\n/, shift, 2;
    my $status = ($head // '') =~ m{^HTTP/1\.\d (\d+)} ? $1 : 0;
    return ($status, $head // '', joined($head // '', $body // ''));
}

sub joined {
    my ($head, $body) = @_;
    return $body if $head !~ /^Transfer-Encoding: *chunked/mi || $body !~ /^[0-9a-fA-F]+\r\n/;
    my $whole = '';
    $whole .= substr $body, 0, hex($1), '' while $body =~ s/^(?:\r\n)?([0-9a-fA-F]+)\r\n// && hex $1;
    return $whole;
}

# --- the node

sub raw {
    my ($bytes, $seconds) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) or return '';
    syswrite $s, $bytes;
    my ($out, $until) = ('', time + $seconds);
    while (time < $until && IO::Select->new($s)->can_read($until - time)) { sysread($s, $out, 65536, length $out) or last }
    return $out;
}

sub get { return parsed(raw("GET $_[0] HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 5)) }

sub begin {
    my ($model, $ctx) = @_;
    my $free = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 0, Listen => 1) or die "no free port\n";
    $port = $free->sockport;
    close $free;
    $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', "$tmp/log";
        exec $dair, 'node', $model // (), qw(--interface lo --discovery off --threads 1 --kv f32 --cluster-port 0 --ctx), $ctx,
          '--state', "$tmp/state", '--port', $port or exit 127;
    }
    for (my $until = time + 60; time < $until && !has_ended(); sleep 0.05) {
        return 1 if (get('/health'))[0] == 200;
    }
    end();
    return 0;
}

# Its number may be another's from then on.
sub has_ended {
    $pid = 0 if $pid && waitpid($pid, WNOHANG);
    return !$pid;
}

sub end {
    local $?;
    return if !$pid;
    kill 'TERM', $pid;
    for (my $until = time + 10; time < $until; sleep 0.05) { return if has_ended() }
    kill 'KILL', $pid;
    waitpid $pid, 0;
    $pid = 0;
}
END { end() }

# --- verdicts

# The choices of a completion, whole or streamed, as {text, end, index}; and the whole object.
sub choices {
    my ($head, $body) = @_;
    my @part = $head =~ m{^Content-Type: *text/event-stream}mi ? $body =~ /^data: (\{.*)$/mg : $body;
    my (@choice, $whole);
    for my $o (map { eval { decode_json($_) } // {} } @part) {
        $whole = $o;
        for my $c (ref $o->{choices} eq 'ARRAY' ? @{$o->{choices}} : ()) {
            my $to = $choice[$c->{index} // 0] //= {text => '', end => undef};
            $to->{text} .= $c->{text} // '';
            $to->{end} = $c->{finish_reason} if defined $c->{finish_reason};
        }
    }
    return ($whole // {}, map { $_ // {text => '', end => undef} } @choice);
}

# What is wrong with our completion.
sub judge_completion {
    my ($asked, $ours, $theirs, $has_text) = @_;
    my ($mine, @mine) = choices(@$ours);
    my ($other, @other) = choices(@$theirs);
    return 'not the form of a text_completion' if ($mine->{object} // '') ne 'text_completion' || !$mine->{id} || !$mine->{created};
    return @mine . ' choices, want ' . @other if @mine != @other;
    my ($is_stream, $was_stream) = map { $_->[0] =~ m{^Content-Type: *text/event-stream}mi ? 1 : 0 } $ours, $theirs;
    return 'streamed is ' . $is_stream . ", want $was_stream" if $is_stream != $was_stream;
    return 'no [DONE] at the end' if $was_stream && $theirs->[1] =~ /^data: \[DONE\]/m && $ours->[1] !~ /^data: \[DONE\]\s*\z/m;
    my $prompt = ref $asked->{prompt} ? '' : $asked->{prompt} // '';
    my @said = map { $asked->{echo} && index($_->{text}, $prompt) == 0 ? substr $_->{text}, length $prompt : $_->{text} } @mine;
    for my $i ($has_text ? 0 .. $#mine : ()) {
        next if $said[$i] eq $other[$i]{text} || $mine[$i]{text} eq $other[$i]{text};
        return encode_json([$said[$i]]) . ', want ' . encode_json([$other[$i]{text}]);
    }
    for my $i ($has_text ? 0 .. $#mine : ()) {
        my ($is, $want) = map { $_ // 'null' } $mine[$i]{end}, $other[$i]{end};
        return "ends by $is, want $want" if $is ne $want;
    }
    my ($is, $want) = ($mine->{usage}, $other->{usage});
    # Of several, llama.cpp tells the first one's; in streams ours is told to who asks for it.
    return if !$has_text || $was_stream || ref $want ne 'HASH' || @other != 1;
    my @wrong = grep { ($is->{$_} // -1) != $want->{$_} } grep { defined $want->{$_} } qw(prompt_tokens completion_tokens total_tokens);
    return @wrong ? "$wrong[0] is " . ($is->{$wrong[0]} // 'not told') . ", want $want->{$wrong[0]}" : ();
}

# Greedy, of a length that was asked for, and nothing in it that the two may understand differently.
my %plain = map { $_ => 1 } qw(prompt max_tokens temperature seed model cache_prompt stream stream_options echo stop user n
  top_k top_p min_p logit_bias presence_penalty frequency_penalty);

sub is_exact {
    my $asked = shift;
    my ($temp, $most) = @$asked{qw(temperature max_tokens)};
    return defined $temp && "$temp" =~ /^0(\.0*)?$/ && defined $most && "$most" =~ /^[1-9]/ && !grep { !$plain{$_} } keys %$asked;
}

# passed, failed or unsupported, and why.
sub judge {
    my ($case, $is_float) = @_;
    my $request = bytes($case->{request});
    my ($is_cut, $body_is_cut) = map { /\.\.\.\[\d+ bytes\]\z/ } $case->{request}, $case->{body};
    return ('unsupported', 'the request was not recorded whole') if $is_cut;
    return ('unsupported', 'the recording is in a form that is not known here') if grep { ref } @$case{qw(request body status_line)};
    my ($method, $path, $asked) = ('', '', {});
    if ($request =~ m{^([A-Z]+) (/[^\s?]*)\S* HTTP/1\.([01])\r\n}) { ($method, $path) = ($1, $2) }
    $asked = eval { decode_json($1) } // {} if $request =~ /\r\n\r\n(.*)\z/s;
    $asked = {} if ref $asked ne 'HASH';
    my ($want) = $case->{status_line} =~ m{^HTTP/\S+ (\d+)} or return ('unsupported', 'no status was recorded');
    my ($is, $head, $body) = parsed(raw($request, 30));
    my $their_head = join "\r\n", ref $case->{response_headers} eq 'ARRAY' ? @{$case->{response_headers}} : ();
    my $their_body = bytes($case->{body});
    my $has_no_host = $request =~ m{^\S+ \S+ HTTP/1\.1\r\n} && $request !~ /^Host:/mi;
    if ($is == 404 || $is == 405 || $is == 501) {
        return ('passed') if $want == $is;
        return ('unsupported', "no $path here") if !$listed{$path};
    }
    seen('http', $path) if $listed{$path};
    my $said = eval { decode_json($body)->{error}{message} } // '';
    return ('unsupported', $said) if $want < 300 && $is == 400 && $said =~ /not supported|can only be/;
    return $is >= 400 && $is < 500 ? ('passed') : ('failed', "status $is, want 400") if $has_no_host;
    if ($want >= 400) {
        return ('passed') if !$is && (!$path || length $request > 60000);
        return ('failed', "status $is, want $want") if $is < 400 || $is >= 500;
        return ('failed', 'no sentence says why') if length $their_body && $path && !length $said;
        return ('passed');
    }
    return ('passed') if $path eq '/v1/completions' && $is == 400 && !ref $asked->{prompt} && !length($asked->{prompt} // 'x');
    return ('failed', "status $is, want $want; $said") if $is != $want;
    return ('unsupported', 'the reply was not recorded whole') if $body_is_cut;
    if ($path eq '/v1/completions' && $method eq 'POST') {
        my $why = judge_completion($asked, [$head, $body], [$their_head, joined($their_head, $their_body)], $is_float && is_exact($asked));
        return $why ? ('failed', $why) : ('passed');
    }
    if ($path eq '/health') {
        my ($mine, $other) = map { eval { decode_json($_)->{status} } // '' } $body, $their_body;
        return $mine eq $other ? ('passed') : ('failed', "health $mine, want $other");
    }
    return ('unsupported', 'nothing here knows what its answer should be') if length $their_body && $method ne 'HEAD';
    return ('passed');
}

sub run {
    my ($file, $data) = @_;
    my @case = grep { ref eq 'HASH' && length($_->{request} // '') } ref $data->{cases} eq 'ARRAY' ? @{$data->{cases}} : ();
    my ($name) = ($data->{server} // '') =~ /([^\s,\/]+\.gguf)/;
    my ($ctx) = ($data->{server} // '') =~ /(?:^|\s)-c (\d+)/;
    my $model = $name && -s "$dir/C-models/$name" ? "$dir/C-models/$name" : undef;
    system("$dair inspect '$model' --json 2>/dev/null | grep -q '\"runs\":true'") if $model;
    if ($model && $?) {
        print "# ", scalar(@case), " requests for $name, which does not run here\n";
        $unsupported += @case;
        return;
    }
    if (!begin($model, $ctx // 512)) {
        print 'not ok - F-api: the node did not start: ', (slurp("$tmp/log") // '') =~ s/.*\n(?=.)//sr, "\n";
        $failed++;
        return;
    }
    my $is_float = $model && $name =~ /(?<!B)F(16|32)\b/;
    for my $case (@case) {
        $case->{$_} //= '' for qw(id checks status_line body);
        my ($verdict, $why) = judge($case, $is_float);
        if ($verdict eq 'passed') { $passed++ }
        elsif ($verdict eq 'unsupported') { $unsupported++; print "# $case->{id}: $why\n" if $ENV{VERBOSE} }
        else { $failed++; print "not ok - F-api $case->{id} ($case->{checks}): $why\n" }
    }
    end();
}

for my $file (sort glob "$dir/F-api/*transcripts*.json") {
    my $data = transcripts($file);
    if (ref $data eq 'HASH') { run($file, $data); next }
    my $n = () = (slurp($file) // '') =~ /"request"\s*:/g;
    print "# $file is in a form that is not known here: $n requests\n";
    $unsupported += $n;
}
print "F-api: $passed passed, $failed failed, $unsupported unsupported\n";
exit($failed ? 1 : 0);
