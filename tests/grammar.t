#!/usr/bin/perl
# grammar.t - answers of the built-in model that are held to a schema or a grammar: what comes out is
# read by a parser of others and compared with what was asked for; the same on slices.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Dair;
use JSON::PP;
use Test::More;

my $dir = scratch();
my $json = JSON::PP->new->utf8->allow_nonref;
my $schema = $json->encode({
    type       => 'object',
    properties => {
        name   => {type => 'string', minLength => 2, maxLength => 12},
        kind   => {enum => ['Pi', 'NUC', undef]},
        ram    => {type => 'integer', minimum => 1, maximum => 64},
        disks  => {type => 'array', items => {type => 'number', exclusiveMinimum => 0, maximum => 8}, minItems => 1, maxItems => 3},
        since  => {type => 'string', format => 'date'},
        ok     => {type => 'boolean'},
    },
    required             => [qw(name kind ram disks since ok)],
    additionalProperties => JSON::PP::false,
});
write_file("$dir/node.json", $schema);

sub run_text {
    my @words = @_;
    my $run = dair(['run', '-p', 'Tell me about a node.', '-n', 400, '--quiet', @words], seconds => 120);
    is($run->{status}, '0', "run @words[0 .. 1]") or diag($run->{err});
    return $run->{out};
}

sub is_number { my $v = shift; return defined $v && !ref $v && $json->encode($v) =~ /^-?[0-9.eE+-]+$/ }

sub check {
    my ($name, $text) = @_;
    my $o = eval { $json->decode($text) };
    ok(ref $o eq 'HASH', "$name: a JSON object") or return diag($text);
    is(join(' ', sort keys %$o), 'disks kind name ok ram since', "$name: its properties");
    my $length = length($o->{name} // '');
    ok($length >= 2 && $length <= 12, "$name: the name has $length characters");
    like($o->{kind} // 'null', qr/^(Pi|NUC|null)$/, "$name: one of the kinds");
    ok(is_number($o->{ram}) && $o->{ram} =~ /^\d+$/ && $o->{ram} >= 1 && $o->{ram} <= 64, "$name: ram");
    my @disks = @{$o->{disks} // []};
    ok(@disks >= 1 && @disks <= 3 && !grep({ !is_number($_) || $_ <= 0 || $_ > 8 } @disks), "$name: disks");
    like($o->{since} // '', qr/^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$/, "$name: a date");
    ok(JSON::PP::is_bool($o->{ok}), "$name: true or false");
}

# ---- a schema, likeliest and sampled, from a file and as a text
check('greedy', run_text('--json-schema', "$dir/node.json", '--temp', 0));
for my $seed (1 .. 4) {
    check("seed $seed", run_text('--json-schema', $schema, '--temp', 1.5, '--top-k', 0, '--top-p', 1, '--min-p', 0, '--seed', $seed));
}
my @way = ('--json-schema', $schema, '--temp', 0.9, '--repeat-penalty', 1.2, '--seed', 7);
my $one = run_text(@way);
check('penalties beside it', $one);
is(run_text(@way, '--slices', 3), $one, 'the same text from three slices');

# ---- what a schema asks for that is not enforced is told, unless --quiet
my $mail = '{"type":"string","format":"email","maxLength":4}';
for my $way (['run'], ['run', '--json'], ['run', '--quiet'], ['chat', '--json'], ['chat', '--quiet']) {
    my ($verb, @more) = @$way;
    my $run = dair([$verb, '-p', 'x', '-n', 40, @more, '--json-schema', $mail], seconds => 60);
    is($run->{status}, 0, "@$way: exit status 0");
    like($run->{out}, qr/^".*"$/, 'a string') if $verb eq 'run' && "@more" ne '--json';
    my $note = $run->{err} =~ /^note +the schema asks for format email: not enforced$/m;
    ok("@more" eq '--quiet' ? !$note : $note, "@$way: a note, or none") or diag($run->{err});
}

# ---- a grammar
write_file("$dir/list.gbnf", "# names\nroot ::= word (\", \" word){2} \".\"\nword ::= [A-Z] [a-zé]{1,8}\n");
like(run_text('--grammar', "$dir/list.gbnf", '--temp', 1), qr/^[A-Z][a-z\xc3\xa9]{1,16}(, [A-Z][a-z\xc3\xa9]{1,16}){2}\.$/,
    'a grammar from a file');
is(run_text('--grammar', 'root ::= "世界" "!"', '--temp', 0), '世界!', 'characters that no token holds whole');
my $run = dair(['run', '-p', 'x', '-n', 5, '--json', '--grammar', 'root ::= "a"'], seconds => 60);
is(figures($run)->{end}, 'eos', 'an answer ends where the grammar does');

# ---- what cannot be used, said in one way
my $deep = join "\n", 'root ::= r0', (map { my $n = $_ + 1; "r$_ ::= r$n? r$n?" } 0 .. 29), 'r30 ::= "a"';
for my $case (
    ['--grammar',     $deep,              qr/^dair run: --grammar: .* more than 250 rules/],
    ['--grammar',     'root ::= [',       qr/^dair run: --grammar: .*1:10/],
    ['--json-schema', 'false',            qr/^dair run: --json-schema: .*nothing to choose from/],
    ['--json-schema', '[]',               qr/^dair run: --json-schema: .*must be an object, true or false/],
    ['--json-schema', ' [5]',             qr/^dair run: --json-schema: .*must be an object, true or false/],
    ['--json-schema', 'null',             qr/^dair run: --json-schema: .*must be an object, true or false/],
    ) {
    my ($option, $text, $says) = @$case;
    my $refused = dair(['run', '-p', 'x', $option, $text], seconds => 60);
    is($refused->{status}, 2, "$option " . substr($text, 0, 20) . ': exit status 2');
    like($refused->{err}, $says, 'and why') or diag($refused->{err});
}
isnt(dair(['run', '-p', 'x', '--json-schema', 'node.json'])->{status}, 0, 'a file that is not there');
my $any = run_text('--json-schema', 'true', '--temp', 0, '-n', 20);
ok(length $any, 'true: any JSON');
done_testing();
