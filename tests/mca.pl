#!/usr/bin/perl
# mca.pl OBJDUMP OBJECT... - what llvm-mca predicts for the loops of the ARM kernels, beside the bounds of
# the boards. Predictions, not measurements: a model of the core with every load a hit in L1.
#
# Each OBJECT is an ARM object of the product, named by its source. Of a function gemv_TYPE or gemm_TYPE the
# innermost loop that multiplies most is taken; cycles are per block of 8 rows times 32 columns (times the
# tokens of a tile). LLVM_MCA names the tool, version 19 or later: older ones take Cortex-A76 for an A57.
use strict;
use warnings;

my ($objdump, @objects) = @ARGV;
my $mca = $ENV{LLVM_MCA} || 'llvm-mca-19';

# Cores as LLVM models them (the A76 as its sister, the Neoverse N1) and the board that each is in: GHz,
# cores, and of the performance reference's table of platforms (1.1) what four threads read from memory, GB/s,
# and int8 multiply-adds of all cores, 1e9/s. The Pi 3's and 4's memory and the Pi 3's multiplications are
# estimates there; the Pi 5's 11.6 GB/s are published (13.2 with two threads).
my @boards = (
    {core => 'cortex-a53',  board => 'Pi 3B+', variant => 'neon',    ghz => 1.4, cores => 4, memory => 2.0,  macs => 22},
    {core => 'cortex-a72',  board => 'Pi 4',   variant => 'neon',    ghz => 1.8, cores => 4, memory => 4.0,  macs => 57.6},
    {core => 'neoverse-n1', board => 'Pi 5',   variant => 'dotprod', ghz => 2.4, cores => 4, memory => 11.6, macs => 307},
);
# Bits of a weight in memory, scales included.
my %bits = (
    q4_0 => 4.5, q4_1 => 5, q5_0 => 5.5, q5_1 => 6, q8_0 => 8.5, q2_k => 2.625, q3_k => 3.4375, q4_k => 4.5,
    q5_k => 5.5, q6_k => 6.5625, iq4_nl => 4.5, iq4_xs => 4.25, mxfp4 => 4.25,
);
my @types = $ENV{MCA_TYPES} ? split /,/, $ENV{MCA_TYPES} : qw(q4_0 q8_0 q4_k q6_k);
my $macs_of_block = 8 * 32;

# A core's cycles for one block when all cores read weights as fast as the memory gives them.
sub memory_bound {
    my ($board, $type) = @_;
    my $bytes = $macs_of_block * $bits{$type} / 8;
    return $bytes * $board->{ghz} * $board->{cores} / $board->{memory};
}

# A core's cycles for the multiplications of one block and n tokens.
sub multiply_bound {
    my ($board, $n) = @_;
    return $macs_of_block * $n * $board->{ghz} * $board->{cores} / $board->{macs};
}

# The functions of an object: name => [[address, instruction], ...].
sub functions {
    my $object = shift;
    my (%code, $name);
    open my $in, '-|', $objdump, '-d', '--no-show-raw-insn', $object or die "mca: $objdump: $!\n";
    while (<$in>) {
        if (/^[0-9a-f]+ <(\w+)>:/) { $name = $1; next }
        next unless defined $name && /^\s*([0-9a-f]+):\s+(\S.*?)\s*(?:\/\/.*)?$/;
        my ($at, $text) = (hex $1, $2);
        $text =~ s/^(adrp\s+x\d+), .*/$1, constants/;
        push @{$code{$name}}, [$at, $text];
    }
    close $in or die "mca: $objdump cannot read $object\n";
    return \%code;
}

sub macs { my $n = 0; for (@_) { $n += /^[us]mla?u?l2?\s+v\d+\.8h/ || /^[us]mull2?\s+v\d+\.8h/ ? 8 : /^[us]dot\s/ ? 16 : 0 } return $n }

my $branch = qr/^(?:b|b\.\w+|cbn?z|tbn?z)\s/;

# The innermost loop that multiplies most: its instructions without branches, and how many branches were
# inside (none in a loop that is a straight line).
sub main_loop {
    my @code = @{$_[0]};
    my @loops;
    for my $i (0 .. $#code) {
        next unless $code[$i][1] =~ /$branch.*?\b([0-9a-f]+) </;
        my $to = hex $1;
        next if $to > $code[$i][0] || $to < $code[0][0];
        my ($first) = grep { $code[$_][0] == $to } 0 .. $i or next;
        push @loops, [$first, $i];
    }
    my ($best, $most, $inside) = (undef, 0, 0);
    for my $loop (@loops) {
        my ($first, $last) = @$loop;
        next if grep { $_ != $loop && $_->[0] >= $first && $_->[1] <= $last && macs(map { $_->[1] } @code[$_->[0] .. $_->[1]]) } @loops;
        my @body = map { $_->[1] } @code[$first .. $last];
        my @straight = grep { !/$branch/ } @body;
        my $n = macs(@straight);
        ($best, $most, $inside) = (\@straight, $n, @body - @straight - 1) if $n > $most;
    }
    return ($best, $most, $inside);
}

# Cycles of an iteration, and what it would be if only the units of the core counted.
sub predict {
    my ($core, @body) = @_;
    my $file = "/tmp/dair-mca-$$.s";
    open my $out, '>', $file or die "mca: $file: $!\n";
    print $out "$_\n" for @body;
    close $out or die "mca: $file: $!\n";
    my $text = `$mca -mtriple=aarch64 -mcpu=$core -iterations=100 $file 2>&1`;
    unlink $file;
    my ($cycles) = $text =~ /^Total Cycles:\s+(\d+)/m or die "mca: $mca: $text\n";
    my ($units) = $text =~ /^Block RThroughput:\s+([\d.]+)/m;
    return ($cycles / 100, $units);
}

# Tokens of a tile, as the source has them.
sub tile_tokens {
    my $stem = shift;
    open my $in, '<', "kernels/$stem.c" or die "mca: kernels/$stem.c: $!\n";
    while (<$in>) { return $1 if /\bTILE_TOK = (\d+)/ }
    return 1;
}

`$mca --version 2>&1` =~ /LLVM version (\d+)/ && $1 >= 19
    or die "mca: $mca of LLVM 19 or later is needed, see LLVM_MCA in tests/mca.pl\n";
print <<'TEXT';
Predictions of llvm-mca, not measurements: cycles of one core for a block of 8 rows x 32 columns (x T tokens).
"units": the same loop if only the core's units limited it. "memory": one of four cores when they share what
the board reads. "multiplier": the board's peak. sp: instructions that touch the stack (spills).

TEXT
printf "%-24s %-7s | %9s %6s %7s  %-8s | %2s %9s %6s %11s %5s | %s\n", 'core (board), variant', 'type', 'GEMV', 'units',
    'memory', 'bound by', 'T', 'GEMM', 'units', 'multiplier', 'peak', 'sp';
for my $board (@boards) {
    my %rows;    # by type
    for my $object (grep { m{/$board->{variant}\w*\.o$} } @objects) {
        my ($stem) = $object =~ m{(\w+)\.o$};
        my $code = functions($object);
        for my $type (@types) {
            my ($v, $m) = map { $code->{"${_}_$type"} } qw(gemv gemm);
            next unless $v && $m;
            $rows{$type}++;
            my @row;
            my $spills = '';
            for my $case ([$v, 1], [$m, tile_tokens($stem)]) {
                my ($body, $macs, $inside) = main_loop($case->[0]);
                die "mca: $object: no loop of $type that multiplies\n" unless $body;
                my $per = $macs_of_block * $case->[1] / $macs;
                my ($cycles, $units) = predict($board->{core}, @$body);
                $spills .= sprintf ' %d%s', scalar(grep { /\bsp\b/ } @$body), $inside ? ", $inside branches" : '';
                push @row, $case->[1], $cycles * $per, $units * $per;
            }
            my $memory = memory_bound($board, $type);
            my $peak = multiply_bound($board, $row[3]);
            printf "%-24s %-7s | %9.1f %6.1f %7.1f  %-8s | %2d %9.1f %6.1f %11.1f %4.0f%% |%s\n",
                "$board->{core} ($board->{board}), $stem", $type, $row[1], $row[2], $memory,
                $row[1] < $memory ? 'memory' : 'core', $row[3], $row[4], $row[5], $peak, 100 * $peak / $row[4], $spills;
        }
    }
    # The compiler may have inlined a function, or it has another name now.
    my @lost = grep { !$rows{$_} } @types;
    die "mca: no object of $board->{variant} has both gemv_TYPE and gemm_TYPE for @lost\n" if @lost;
}
