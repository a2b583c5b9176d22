#!/usr/bin/perl
# golden_tokenizers.pl DIR: every vocabulary of DIR/A-tokenizers against what other programs made of
# the same texts.
#
# For each NAME.gguf: NAME.expected.json (three checks a text: plain, special, and back to text), the
# pairs NAME.gguf.inp and .out, and what hf_*.json has for it. One process a vocabulary. A vocabulary
# that the driver refuses as unsupported counts so, unless tests/supported.txt lists its kind.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Golden;
use JSON::PP;
use IPC::Open2;
use File::Basename;

my $dir = shift or die "usage: golden_tokenizers.pl DIR\n";
my $data = "$dir/A-tokenizers";
my $driver = ($ENV{DAIR_BUILD} || 'build/x86_64') . '/tests/golden_tok';
my %listed = listed('tokenizer');
my ($passed, $failed, $unsupported, $bad) = (0, 0, 0, 0);

sub json { my $raw = slurp(shift); return defined $raw ? decode_json($raw) : undef }
sub hex_of { my $s = shift; utf8::encode($s) if utf8::is_utf8($s); return unpack 'H*', $s }
sub brief { my $s = shift; return length $s > 70 ? substr($s, 0, 70) . '...' : $s }

# The checks of one vocabulary: [name, command, answer wanted, other answer allowed or undef]. lost: bytes that it has no
# token for.
sub expected_checks {
    my ($name, $texts, $marks, $lost) = @_;
    my $j = json("$data/$name.expected.json") or return;
    my @checks;
    for my $c (@{$j->{cases}}) {
        next unless exists $texts->{$c->{tag}};
        my $hex = hex_of($texts->{$c->{tag}});
        my $back = defined $c->{detok_hex} ? $c->{detok_hex} : $hex;
        push @checks, ["$c->{tag} plain", "encode - $hex", "@{$c->{plain}}"],
            ["$c->{tag} special", "encode bs $hex", "@{$c->{special}}"],
            ["$c->{tag} detok", "decode t @{$c->{plain}}", $back];
        # Untidied, the bytes of the text itself come back, of those that there are; where U+2581 stands for a space the
        # two cannot be told apart.
        my $raw = join '', grep { !$lost->{$_} } $hex =~ /../g;
        push @checks, ["$c->{tag} raw", "decode - @{$c->{plain}}", $hex, $marks ? $back : $raw];
    }
    return @checks;
}

sub pair_checks {
    my $name = shift;
    my ($in, $out) = (slurp("$data/$name.gguf.inp"), slurp("$data/$name.gguf.out"));
    return unless defined $in && defined $out;
    my @in = split /\n__ggml_vocab_test__\n/, $in, -1;
    my @out = split /\n/, $out, -1;
    pop @out while @out > @in;
    return map { ["inp $_", 'encode - ' . hex_of($in[$_]), join ' ', split ' ', $out[$_]] } 0 .. $#out;
}

sub hf_checks {
    my ($name, $hf, $bos) = @_;
    my @checks;
    for my $c (map { @{$_->{cases}} } grep { $_->{vocab_gguf} eq "$name.gguf" } @$hf) {
        my $flags = @{$c->{ids}} && $c->{ids}[0] == $bos ? 'bs' : 's';
        push @checks, ["hf $c->{name}", "encode $flags " . hex_of($c->{text}), "@{$c->{ids}}"];
        next unless defined $c->{decoded};
        push @checks, ["hf $c->{name} back", "decode st @{$c->{ids}}", hex_of($c->{decoded})];
    }
    return @checks;
}

# The bytes that a vocabulary of letters for bytes has no token for: ids cannot say them.
sub lost_bytes {
    my ($to, $from) = @_;
    my %lost;
    for my $byte (map { sprintf '%02x', $_ } 0 .. 255) {
        print $to "encode - $byte\n";
        $to->flush;
        $lost{$byte} = 1 if (<$from> // '') eq "\n";
    }
    return \%lost;
}

# Run the commands of all checks through one driver; the verdict of each check.
sub run {
    my ($name, $texts, $hf) = @_;
    my $pid = open2(my $from, my $to, $driver, "$data/$name.gguf");
    my $hello = <$from> // '';
    my ($kind, $bos) = $hello =~ /^tokenizer (\S+) bos=(-?\d+)/;
    $kind //= '?';
    local $SIG{PIPE} = 'IGNORE';
    my $lost = $kind =~ /^gpt2/ ? lost_bytes($to, $from) : {};
    my @checks = (expected_checks($name, $texts, $kind !~ /^gpt2/, $lost), pair_checks($name),
                  hf_checks($name, $hf, $bos // -1));
    my @wrong;
    for my $c (@checks) {
        print $to "$c->[1]\n";
        $to->flush;
        my $got = <$from>;
        last unless defined $got;
        chomp $got;
        next if $got eq $c->[2] || (defined $c->[3] && $got eq $c->[3]);
        push @wrong, [$c->[0], $got, $c->[2]];
    }
    close $to;
    waitpid $pid, 0;
    return ($kind, $? >> 8 || ($? ? 128 : 0), scalar @checks, @wrong);
}

-x $driver or die "$driver is not built\n";
my $texts = { map { $_->{tag} => $_->{text} } @{json("$data/texts.json") || []} };
my $hf = [map { @{json($_) || []} } sort glob "$data/hf_*.json"];
for my $file (sort glob "$data/*.gguf") {
    my $name = basename($file, '.gguf');
    my ($kind, $status, $n, @wrong) = run($name, $texts, $hf);
    if ($status == 4 && !$listed{$kind}) {
        $unsupported += $n;
        print "# $name ($kind): not supported yet, $n checks\n";
        next;
    }
    seen('tokenizer', $kind) if $n;
    if ($status) {
        print "not ok - $name ($kind): the driver ended with status $status\n";
        $failed += $n;
        $bad++ if $listed{$kind} || $status >= 128;
        next;
    }
    print "not ok - $name $_->[0]: got ", brief($_->[1]), ', want ', brief($_->[2]), "\n" for @wrong;
    $failed += @wrong;
    $passed += $n - @wrong;
    $bad += @wrong if $listed{$kind};
    print "# $name ($kind): ", $n - @wrong, " of $n\n";
}
print "A-tokenizers: $passed passed, $failed failed, $unsupported unsupported\n";
exit($bad ? 1 : 0);
