#!/usr/bin/perl
# golden.pl [DIR]: all tests on data made by others, in a folder laid out like DAIR_TESTDATA.
#
# Each part prints "N passed, N failed, N unsupported", and so does the whole at the end. Exit 1 when
# anything failed; what a later version will support counts as unsupported, never as passed. What
# tests/supported.txt lists and the folder has nothing of is named at the end.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Golden;
use File::Basename;
use File::Temp;

my $dir = shift || $ENV{DAIR_TESTDATA} || '../shared/testdata';
my $here = dirname(__FILE__);
my $build = $ENV{DAIR_BUILD} ||= 'build/x86_64';
$ENV{DAIR_BIN} ||= "$build/dair";
-d $dir or do { print "1..0 # SKIP no test data at $dir (set DAIR_TESTDATA)\n"; exit 0 };
my @total = (0, 0, 0);
my $seen = File::Temp->new;
$ENV{GOLDEN_SEEN} = $seen->filename;

sub report {
    my ($part, @n) = @_;
    $total[$_] += $n[$_] for 0 .. 2;
    print "$part: $n[0] passed, $n[1] failed, $n[2] unsupported\n";
}

# A part with a script of its own: its closing line is the verdict.
sub script {
    my ($part, $folder, @cmd) = @_;
    return unless -d "$dir/$folder";
    my @n;
    open my $out, '-|', $^X, @cmd or die "$cmd[0]: $!\n";
    while (<$out>) {
        if (/(\d+) passed, (\d+) failed, (\d+) unsupported/) { @n = ($1, $2, $3) }
        else { print }
    }
    close $out;
    @n = (0, 1, 0) if !@n;    # it died
    report($part, @n);
}

# TAP from a test that E-malformed shares with `make test`.
sub malformed {
    return unless -d "$dir/E-malformed";
    local $ENV{DAIR_TESTDATA} = $dir;
    my @n = (0, 0, 0);
    open my $out, '-|', $^X, "$here/malformed.t" or die "malformed.t: $!\n";
    while (<$out>) {
        if (/^not ok/) { $n[1]++; print }
        elsif (/^ok.*# SKIP/i) { $n[2]++ }
        elsif (/^ok/) { $n[0]++ }
    }
    close $out;
    report('E-malformed', @n);
}

# The numbers as bits; NaNs as one, since their payload may be any.
sub bits {
    my ($form, $raw) = @_;
    my ($words, $inf) = $form eq 'F32' ? ('V*', 0x7f800000) : $form eq 'BF16' ? ('v*', 0x7f80) : ('v*', 0x7c00);
    my $sign = $form eq 'F32' ? 0x80000000 : 0x8000;
    return join ' ', map { ($_ & ~$sign) > $inf ? 'nan' : $_ } unpack $words, $raw;
}

# Conversions give the same bits: all halves to floats, chosen floats to halves and bf16.
sub conversions {
    my %listed = listed('conversion');
    my @n = (0, 0, 0);
    for my $file (grep { -e } sort glob "$dir/D-quant/F16_all65536_to_F32.f32 $dir/D-quant/conv_F32_to_*.u16") {
        my ($from, $to) = basename($file) =~ /(F16|F32)(?:_all65536)?_to_([A-Z0-9]+)\./ or next;
        my $temp = File::Temp->new;
        print $temp $from eq 'F16' ? pack('v*', 0 .. 65535) : slurp("$dir/D-quant/conv_input.u32") // '';
        close $temp;
        my $got = `$build/tests/golden_quant ${from}_to_$to < $temp`;
        my $want = slurp($file) // '';
        seen('conversion', "${from}_to_$to");
        if ($? >> 8 == 4 && !$listed{"${from}_to_$to"}) { $n[2]++ }
        elsif (!$? && length $want && length $got == length $want && bits($to, $got) eq bits($to, $want)) { $n[0]++ }
        else { $n[1]++; print "not ok - D-quant ", basename($file), "\n" }
    }
    return @n;
}

# Dequantising must give the same bits.
sub quant {
    return unless -d "$dir/D-quant";
    my %listed = listed('type');
    my @n = conversions();
    for my $bin (sort glob "$dir/D-quant/*.bin") {
        my ($type) = basename($bin) =~ /^([A-Z0-9_]+)\./ or next;
        (my $want = $bin) =~ s/\.bin$/.f32/;
        my $got = `$build/tests/golden_quant $type < '$bin'`;
        seen('type', $type);
        if ($? >> 8 == 4 && !$listed{$type}) { $n[2]++ }
        elsif (!$? && length $got && $got eq (slurp($want) // '')) { $n[0]++ }
        else { $n[1]++; print "not ok - D-quant ", basename($bin), "\n" }
    }
    report('D-quant', @n);
}

script('A-tokenizers', 'A-tokenizers', "$here/golden_tokenizers.pl", $dir);
script('B-chat-templates', 'B-chat-templates', "$here/golden_templates.pl", $dir);
script('B-chat-templates in chat', 'B-chat-templates', "$here/golden_templates.pl", $dir, 'chat');
script('C-models + G-golden', 'C-models', "$here/golden_models.pl", $dir);
quant();
malformed();
script('F-api', 'F-api', "$here/golden_http.pl", $dir);
script('H-samplers', 'H-samplers', "$here/golden_samplers.pl", $dir);
my @unseen = unseen();
print '# listed in supported.txt, with nothing of it in this folder: ', join(', ', @unseen), "\n" if @unseen;
my $all = $total[0] + $total[1] + $total[2];
printf "# unsupported: %.1f %% of all cases\n", 100 * $total[2] / $all if $all;
print "$total[0] passed, $total[1] failed, $total[2] unsupported\n";
exit($total[1] ? 1 : 0);
