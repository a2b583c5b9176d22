#!/usr/bin/perl
# chat.t - `dair chat` over a pipe, and `dair render`: history, commands, what stays in the cache, the
# prompt as the model sees it, thoughts told from answers.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use IO::Handle;
use JSON::PP;
use Test::More;
use POSIX 'mkfifo';

my $dir = scratch();
$SIG{PIPE} = 'IGNORE';    # a program that has ended reads no more

sub file { my ($name, $text) = @_; write_file("$dir/$name", $text); return "$dir/$name" }
sub render { return dair(['render', @_]) }

# --- render

my $messages = file('m.json', '[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi <|im_end|>"}]');
my $template = file('t.jinja', "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{{ 'go' if add_generation_prompt }}{{ tools | tojson if tools }}{{ x }}");
my $r = render('--messages', $messages, '--template', $template);
is($r->{out}, "[system] Be brief.\n[user] Hi <|im_end|>\ngo", 'render: a template of ours');
$r = render('--messages', $messages, '--template', $template, '--no-generation-prompt',
         '--tools', file('tools.json', '[{"name":"f"}]'));
is($r->{out}, "[system] Be brief.\n[user] Hi <|im_end|>\n[{\"name\": \"f\"}]", 'tools, and no beginning of an answer');
$r = render('--messages', file('o.json', '{"messages":[{"role":"user","content":"a"}],"x":7,"add_generation_prompt":false}'),
         '--template', $template);
is($r->{out}, "[user] a\n7", 'an object with more variables');
$r = render('--messages', $messages, '--json');
my $seen = decode_json($r->{out});
like($seen->{text}, qr/Be brief/, "the built-in model's own template");
is(scalar @{$seen->{ids}}, $seen->{count}, 'and its tokens');
my $spelt = dair(['tokenize', '--special', '--bos', '--json', '-p', $seen->{text}]);
isnt(decode_json($spelt->{out})->{count}, $seen->{count}, 'what a user writes is no control token');

$r = render('--messages', $messages, '--template', file('bad.jinja', "a\n{{ b"));
is($r->{status}, 3, 'a bad template: exit status 3');
like($r->{err}, qr/bad\.jinja: .*template.*line 2/, 'and its line');
$r = render('--messages', $messages, '--template', $template, '--tools', file('one.json', '{"name":"f"}'));
is($r->{status}, 3, 'tools that are no list: exit status 3');
like($r->{err}, qr/the tools must be a list, not an object/, 'which is said');
$r = render('--messages', file('none.json', '{"a":'));
is($r->{status}, 3, 'bad JSON: exit status 3');
$r = render();
is($r->{status}, 2, 'no messages: exit status 2');

# Tools that a template does not look at, and a system text that it refuses: said, not dropped.
$r = render('--messages', $messages, '--template', file('no.jinja', "{{ raise_exception('no such role') if messages[0].role == 'system' }}{{ messages[0].content }}"),
         '--tools', "$dir/tools.json");
is($r->{out}, "Be brief.\n\nHi <|im_end|>", 'a system text on a template without that role');
like($r->{err}, qr/tools are not in the prompt.*no system role/s, 'which is said, and that there are no tools');
my @parts = ('--messages', file('parts.json', '[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]'),
             '--template', file('prints.jinja', '{{ messages[0].content }}'));
is(render(@parts)->{out}, "a\nb", 'parts are texts for a template that would print them as they are');
is(render(@parts, '--as-given')->{out}, "[{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': 'b'}]", '--as-given: as they are');
my @lists = ('--messages', file('text.json', '[{"role":"user","content":"a"}]'),
             '--template', file('lists.jinja', "{% for p in messages[0].content %}{{ p.text if p.type == 'text' else '-' }}{% endfor %}"));
$r = render(@lists);
is($r->{out}, 'a', 'a text is a list of one part for a template that would lose it');
is($r->{err}, '', 'and nothing to be said');
is(render(@lists, '--as-given')->{out}, '-', '--as-given: lost');
$r = render('--messages', "$dir/text.json", '--template', file('deaf.jinja', 'q'));
is($r->{out}, 'q', 'a template that takes no text in any form');
like($r->{err}, qr/^note .*a user says is not in the prompt/, 'which is said');
$r = render('--messages', $messages, '--as-given', '--template', file('no.jinja', "{{ raise_exception('no such role') if messages[0].role == 'system' }}"));
is($r->{status}, 4, '--as-given: what a template refuses');
like($r->{err}, qr/no such role/, 'and says so');
$r = render('--messages', file('tools.o.json', '{"messages":[{"role":"user","content":"a"}],"tools":[{"name":"g"}]}'), '--template', $template);
like($r->{out}, qr/"name": "g"/, 'tools beside the messages');
is($r->{err}, '', 'and nothing to be said');
$r = render('--messages', $messages, '--template', file('refuses.jinja', "{{ raise_exception('never') }}"));
is($r->{status}, 4, 'messages that a template refuses: exit status 4') or diag $r->{err};
like($r->{err}, qr/refuses: never/, 'with its reason');

# --- chat

sub talk { my ($lines, @more) = @_; return dair(['chat', '--temp', 0, @more], from => file('lines', $lines)) }

my $one = dair(['run', '-p', 'What are you?', '--temp', 0, '--quiet']);
my $c = talk("What are you?\n", '--quiet');
is($c->{status}, 0, 'chat: the end of input ends it') or diag $c->{err};
is($c->{out}, "$one->{out}\n", 'the first answer is that of run');
is($c->{err}, '', '--quiet says nothing else');

is(talk("What are you?\n", '--quiet', '-p', 'What are you?')->{out}, talk("What are you?\n" x 2, '--quiet')->{out}, '-p is the first turn');
is(talk("What are you?\n", '--quiet', '-f', file('first', 'What are you?'))->{out}, talk("What are you?\n" x 2, '--quiet')->{out}, 'and so is the text of -f');
$c = talk("What are you?\n", '-f', file('first', "Two\nlines."), '-n', 4);
like($c->{err}, qr/^> .*first: 10 bytes$/m, '-f: its name and length');
is(() = $c->{err} =~ /tokens read/g, 2, 'one turn, whatever lines it has');
$c = talk("What are you?\n", '-f', file('first', 'x' x 20000), '--ctx', 128);
like($c->{err}, qr/^dair chat: \S*first: longer than the 16384 bytes that can be taken here/m, '-f: more than can be taken');
is($c->{status}, 1, 'which is the exit status');
is(() = $c->{err} =~ /tokens read/g, 1, 'and the conversation goes on');
$c = talk("What are you?\n", '-f', "$dir/absent");
is($c->{status}, 1, 'a file that is not there');

# An answer that the grammar leaves no way on for: that turn fails, not the conversation.
my @dead = ('--grammar', 'root ::= "Z" "a"', '--temp', 0, '--logit-bias', ord('a') . ':-inf');
$c = talk("What are you?\n" x 2, @dead, '--json');
my @dead_end = objects($c->{out});
is(join(' ', map { $_->{text} // ($_->{error} ? 'error' : 'end') } @dead_end), 'Z error Z error', 'a grammar with no way on: the turn has an error') or diag $c->{out}, $c->{err};
is(() = $c->{err} =~ /no token of the vocabulary/g, 2, 'which is said');
is($c->{status}, 1, 'and the exit status');
is(talk("What are you?\n" x 2, @dead)->{out}, "Z\nZ\n", 'what came of it keeps its line');

# For programs: each turn ends with an object that says how.
$c = talk("What are you?\n" x 2 . 'x' x 20000 . "\nWhat are you?\n", '--json', '--ctx', 128);
my @seen = objects($c->{out});
my @end = grep { defined $_->{end} } @seen;
like($c->{err}, qr/\Adair chat: a line of 20000 bytes[^\n]*\ndair chat: the conversation has \d+ tokens[^\n]*\n\z/, '--json: nothing beside it but what failed') or diag $c->{err};
is(join('', map { $_->{text} // '' } @seen[0 .. $end[0]{tokens}]), $one->{out}, 'the texts of the first turn are that of run');
is(scalar(grep { defined $_->{id} } @seen), $end[0]{tokens} + $end[1]{tokens} + ($end[2] // {tokens => 0})->{tokens}, 'a line for each token');
is($end[0]{kept_tokens}, 0, 'the first turn keeps nothing');
cmp_ok($end[1]{kept_tokens}, '>', $end[0]{prompt_tokens}, 'the second what was said');
my @error = map { $_->{error} // () } @seen;
like("@error", qr/line of 20000 bytes.*the conversation has/, 'turns that fail are objects, too');
is(@end + @error, 4, 'each turn has one at its end');
is($c->{status}, 1, 'and the exit status');

$c = talk("What are you?\n" x 2);
my @note = $c->{err} =~ /\[(\d+) tokens read, (\d+) kept/g;
is($note[1], 0, 'the first turn is read whole') or diag $c->{err};
cmp_ok($note[3], '>', $note[0], 'of the second what was said is kept');
cmp_ok($note[2], '<', $note[3], 'and less is read than kept');

# An answer must not depend on what the cache kept.
my $text = (split /\n/, $c->{out})[1];
my $again = talk("What are you?\nWhat are you?\n/clear\nWhat are you?\n");
my @said = split /\n/, $again->{out};
is($said[1], $text, 'the same second answer again');
is($said[2], $said[0], '/clear forgets');

$c = talk("/help\n/nonsense\n/quit\nWhat are you?\n");
like($c->{err}, qr{/clear.*there is no command "/nonsense"}s, '/help, and what is no command');
is($c->{out}, '', '/quit leaves');
for (['/system', qr{^/system takes a text}m], ['/system  ', qr{^/system takes a text}m], ['/think', qr{^/think takes auto, on or off}m],
     ['/think maybe', qr{^/think takes auto, on or off, not "maybe"}m], ['/clear all', qr{^/clear takes nothing, not "all"}m],
     ['/quit now', qr{^/quit takes nothing}m], ['/systems x', qr{^there is no command "/systems"}m], ['/', qr{^there is no command "/"}m]) {
    my ($line, $want) = @$_;
    $c = talk("$line\nWhat are you?\n", '--quiet');
    like($c->{err}, $want, "'$line': what it takes");
    is($c->{out}, "$one->{out}\n", 'and the conversation goes on');
    is($c->{status}, 1, 'but its exit status says that a line was refused');
}
unlike($c->{err}, qr/takes/, 'no more than that of what is no command');
is(talk("/nothing\n/quit\n", '--quiet')->{status}, 1, '/quit after one leaves with that exit status');
$c = talk("/think on\n/think auto \n/system Be brief.\n/clear\n", '--quiet');
is($c->{err}, '', 'commands with what they take');
is($c->{status}, 0, 'and exit status 0');
is(talk("/system $_\nWhat are you?\n", '--quiet')->{out}, talk("What are you?\n", '--quiet', '--system', $_)->{out}, '/system ' . length . ' bytes: as --system')
  for 'Be brief.', 'Be brief. ' x 20;
$c = talk('/system ' . 'be brief ' x 700 . "\nWhat are you?\n/system short\nWhat are you?\n", '--ctx', 128);
like($c->{err}, qr/the conversation has \d{3,} tokens/, 'a long /system text is taken, and then too much for the context') or diag $c->{err};
is(() = $c->{err} =~ /tokens read/g, 1, 'and a shorter one takes its place');
is($c->{status}, 1, 'a turn that failed: exit status 1, with all lines read');
$c = talk("What are you?\n" x 40, '--ctx', 200);
like($c->{err}, qr{/clear begins anew}, 'a full context ends no conversation, but says what to do');
is($c->{status}, 1, 'and that is the exit status');
$c = talk("What are you?\n" x 40 . "/clear\nWhat are you?\n", '--ctx', 200, '--quiet');
is((split /\n/, $c->{out})[-1], $one->{out}, 'for which other turns are had');
is($c->{status}, 1, 'whatever comes after it');
$c = talk('x' x 20000 . "\n", '--ctx', 128);
like($c->{err}, qr/line of 20000 bytes.*16384.*--ctx/, 'a line that is too long: how long it may be') or diag $c->{err};
is($c->{status}, 1, 'and exit status 1');
like(dair(['chat', '--help'])->{out}, qr/16 KiB/, 'which --help knows');
for (['', "\r\n"], ['/system ', "  \r\n"]) {
    my ($before, $after) = @$_;
    for my $n (16384, 16385) {
        $c = talk($before . 'x' x $n . $after . "What are you?\n", '--ctx', 128);
        my $is_refused = $c->{err} =~ /line of $n bytes.*16384/ ? 1 : 0;
        is($is_refused, $n > 16384 ? 1 : 0, "'$before' and $n bytes: " . ($n > 16384 ? 'refused' : 'taken')) or diag $c->{err};
    }
}
for my $before ('/', '/think ', "/system \0") {
    $c = talk($before . 'x' x 20000 . "\nWhat are you?\n", '--ctx', 128, '--quiet');
    like($c->{err}, qr/^dair chat: a line of 200\d\d bytes/, "'$before' and as many: refused");
    is($c->{out}, dair(['run', '-p', 'What are you?', '--temp', 0, '--quiet', '--ctx', 128])->{out} . "\n", 'and the conversation goes on');
}
for ("/quit\0", "/system Be\0 brief.", "/\0") {
    $c = talk("$_\nWhat are you?\n", '--quiet');
    like($c->{err}, qr/^a command has no NUL/, 'a command with a NUL byte: refused, not cut off there');
    is($c->{out}, "$one->{out}\n", 'and the conversation goes on');
}
is(talk("\0\n\0/quit\0\n", '--quiet', '-n', 1)->{status}, 0, 'lines with NUL bytes are said');

# However long a line is, it is not kept: the program's memory stays what --memory says.
mkfifo("$dir/wide.fifo", 0600) or die "mkfifo: $!";
my $wide = begin(['chat', '--temp', 0, '--memory', '64M', '--quiet'], from => "$dir/wide.fifo");
open my $into, '>', "$dir/wide.fifo" or die "wide.fifo: $!";
$into->autoflush;
my $mib = 'x' x (1 << 20);
print $into $mib for 1 .. 80;
print $into "\nWhat are you?\n";
sysread $wide->{from}, my $begun, 1;
my ($peak) = read_file("/proc/$wide->{pid}/status") =~ /^VmHWM:\s*(\d+) kB/m;
print $into "/quit\n";
close $into;
finish($wide, 60);
cmp_ok($peak, '<=', 64 << 10, 'a line of 80 MiB: the peak in KiB with --memory 64M') unless is_sanitized();
like($wide->{err}, qr/line of 83886080 bytes/, 'and what is wrong');
is($begun . $wide->{out}, "$one->{out}\n", 'and the conversation goes on');
is($wide->{status}, 1, 'and exit status 1');

# Ctrl-C ends the answer, not the program.
mkfifo("$dir/lines.fifo", 0600) or die "mkfifo: $!";
my $p = begin(['chat', '--temp', 0], from => "$dir/lines.fifo");
open my $to, '>', "$dir/lines.fifo" or die "lines.fifo: $!";
$to->autoflush;
print $to "Tell me a story.\n";
sysread $p->{from}, my $first, 1;
kill 'INT', $p->{pid};
print $to "What are you?\n/quit\n";
finish($p, 60);
is($p->{status}, 0, 'Ctrl-C ends an answer, and the conversation goes on') or diag $p->{err};
my $turns = () = $p->{err} =~ /tokens read/g;
is($turns, 2, 'with another turn');

# A stop string spends an engine of several slices; another takes its place.
my @stops = map { talk("What are you?\n" x 2, '--stop', 'a', '--quiet', @$_) } [], ['--slices', 2];
is($stops[1]{status}, 0, 'a stop string with --slices ends no conversation') or diag $stops[1]{err};
is($stops[1]{out}, $stops[0]{out}, 'and the answers are the same');

# Where another cannot be had, as the file is not what it was, the conversation ends with the reason.
write_file("$dir/cut.gguf", read_file("$FindBin::Bin/../overlay/usr/share/dair/demo.gguf"));
mkfifo("$dir/cut.fifo", 0600) or die "mkfifo: $!";
$p = begin(['chat', "$dir/cut.gguf", '--temp', 0, '--slices', 2, '--grammar', 'root ::= [a-z ]{300}'], from => "$dir/cut.fifo");
open $to, '>', "$dir/cut.fifo" or die "cut.fifo: $!";
$to->autoflush;
print $to "Tell me a story.\n";
sysread $p->{from}, $first, 1;
truncate "$dir/cut.gguf", 65536 or die "truncate: $!";
kill 'INT', $p->{pid};
print $to "What are you?\n";
close $to;
finish($p, 60);
cmp_ok($p->{status}, '>', 0, 'no other engine: a failure, no crash') or diag "$p->{status}: $p->{err}";
like($p->{err}, qr/^dair chat: .*cut\.gguf/m, 'and what is wrong') or diag $p->{err};

# --- thoughts apart from the answer, on a model whose template has tags for them

# In the place of the model's own template, as long: a comment of Jinja's fills it up. Another for tools
# is a key of its own behind it.
sub with_template {
    my ($from, $to, $template, $tools) = @_;
    my $key = 'tokenizer.chat_template';
    open my $in, '<:raw', $from or die "$from: $!";
    my $all = do { local $/; <$in> };
    my $at = index($all, $key) + length($key) + 4;
    my $room = unpack 'Q<', substr $all, $at, 8;
    my $more = defined $tools ? pack('Q</a L< Q</a', "$key.tool_use", 8, $tools) : '';
    my $left = $room - length("$template\{##}$more");
    die "no room for the template in $room bytes" if $left < 0;
    substr($all, $at, 8 + $room) = pack('Q</a', "$template\{#" . ' ' x $left . '#}') . $more;
    substr($all, 16, 8) = pack 'Q<', 1 + unpack 'Q<', substr $all, 16, 8 if $more;
    write_file($to, $all);
}

my ($plain, $thinker) = ("$dir/plain.gguf", "$dir/thinker.gguf");
dair(['synth', '--quiet', '--shape', 'llama-3.2-1b,layers=1,vocab=2000', '--type', 'q4_0', '-o', $plain]);
with_template($plain, $thinker, '{{ messages[0].content }}{% if false %}<think></think>{% endif %}');
with_template($plain, "$dir/two.gguf", 'main', '{{ tools | tojson }}');
is(render("$dir/two.gguf", '--messages', $messages, @$_)->{out}, $_->[0] ? '[{"name": "f"}]' : 'main', "a file with two templates: '@$_'")
  for [], ['--tools', "$dir/tools.json"];
with_template($plain, "$dir/roles.gguf", "{% if messages[0].role != 'user' %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}");
$r = render("$dir/roles.gguf", '--messages', file('reply.json', '[{"role":"assistant","content":"a"}]'));
like($r->{err}, qr/roles\.gguf: the chat template, line 1/, 'a template that refuses is named by its file');
$r = render("$dir/roles.gguf", '--messages', $messages, '--template', "$dir/refuses.jinja");
like($r->{err}, qr/refuses: never/, "one that was given, instead of the model's") or diag $r->{err};
unlike($r->{err}, qr/roles\.gguf/, "is not the model's");
for (['run', '-p', 'hi', '-n', 1], ['chat', '-p', 'hi', '-n', 1]) {
    my ($verb, @more) = @$_;
    $r = dair([$verb, "$dir/roles.gguf", '--system', 'Be brief.', '--ctx', 128, @more], from => '/dev/null');
    is($r->{status}, 0, "$verb --system on a template without that role") or diag $r->{err};
    like($r->{err}, qr/^note .*no system role/m, 'and a note');
}
my @forced = ('-p', 'hi', '-n', 40, '--ctx', 128, '--grammar', 'root ::= "<think>a b</think>the answer"');
for ([$thinker, 'a b', 'the answer'], [$plain, '', '<think>a b</think>the answer']) {
    my ($model, $thought, $answer) = @$_;
    my @lines = map { decode_json($_) } split /\n/, dair(['run', $model, @forced, '--quiet', '--json'])->{out};
    is(join('', map { $_->{reasoning_content} // '' } @lines), $thought, "--json: thought '$thought'");
    is(join('', map { $_->{text} // '' } @lines), $answer, "and answered '$answer'");
}

# Who wants thoughts is told that there is no switch for them, who wants none of a model that has none is not.
for (['on', 1], ['off', 0], ['auto', 0]) {
    my ($think, $told) = @$_;
    is(dair([$_, $plain, '-p', 'hi', '-n', 2, '--ctx', 128, '--think', $think], from => '/dev/null')->{err} =~ /^note .*no such switch/m ? 1 : 0,
        $told, "$_ --think $think: " . ($told ? 'a note' : 'no note')) for qw(run chat);
}

# Where the prompt ends inside of thoughts, they are closed before a grammar that allows none holds.
with_template($plain, "$dir/inside.gguf", '{{ messages[0].content }}{% if false %}</think>{% endif %}{{ "<think>\n" }}');
my @held = ("$dir/inside.gguf", '-p', 'hi', '-n', 40, '--ctx', 128, '--quiet', '--grammar', 'root ::= "the answer"');
is(dair([$_, @held], from => '/dev/null')->{out} =~ s/\n$//r, 'the answer', "$_: a thinking model's answer by a grammar is an answer") for qw(run chat);

is(dair([$_, $thinker, @held[1 .. $#held - 3], '--grammar', 'root ::= "x"'], from => '/dev/null')->{err} =~ /^note/m ? 1 : 0, 0,
    "$_: and of a model without that switch nothing is told") for qw(run chat);

# Ctrl-C while a long prompt is read: there is no answer, and the next turn is as if it had been the first. The
# signal is sent when the program has begun to catch it.
mkfifo("$dir/long.fifo", 0600) or die "mkfifo: $!";
my @long = ($plain, '--temp', 0, '-n', 3, '--ctx', 8192, '--spec', 'off');
$p = begin(['chat', @long], from => "$dir/long.fifo");
open $to, '>', "$dir/long.fifo" or die "long.fifo: $!";
$to->autoflush;
print $to join(' ', 1 .. 2200), "\n";
for (my $end = time + 60; time < $end;) {
    my ($caught) = read_file("/proc/$p->{pid}/status") =~ /^SigCgt:\s*([0-9a-f]+)/m;
    last if hex(substr $caught, -1) & 2;
    select undef, undef, undef, 0.01;
}
kill 'INT', $p->{pid};
print $to "hi\n/quit\n";
close $to;
finish($p, 120);
is($p->{status}, 0, 'Ctrl-C while a prompt is read: the conversation goes on') or diag $p->{err};
like($p->{err}, qr/stopped while reading/, 'and says that nothing was said');
is($p->{out}, dair(['chat', @long], from => file('hi', "hi\n"))->{out}, 'and the next turn is the first');
is(dair(['chat', @long, '--ctx', 128], from => file('wide', 'x' x 20000 . "\nhi\n"))->{out}, $p->{out}, 'a line that cannot fit is refused');

# A small model guesses ahead, turn after turn: the same text.
my $draft = "$dir/draft.gguf";
dair(['synth', '--quiet', '--shape', 'llama-3.2-1b,layers=1,vocab=2000', '--type', 'q4_0', '--seed', 7, '-o', $draft]);
my @turns = map { talk("hi\nand so\n/clear\nhi\n", $plain, '-n', 24, '--ctx', 256, '--quiet', @$_) }
  ['--spec', 'off'], ['--draft', $draft], ['--draft', $draft, '--spec', 'draft'], ['--draft', $plain];
is($_->{status}, 0, 'chat --draft: exit status 0') or diag($_->{err}) for @turns;
is($_->{out}, $turns[0]{out}, 'and the same answers') for @turns[1 .. 3];
$r = dair(['run', $thinker, @forced]);
is($r->{out}, "the answer", 'the answer alone on standard output');
like($r->{err}, qr/a b\n\n/, 'thoughts beside it, and a blank line behind them');

done_testing();
