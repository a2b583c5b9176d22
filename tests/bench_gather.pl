#!/usr/bin/perl
# bench_gather.pl: gathers between nodes in network namespaces, a line of JSON for each size. Over plain
# veth for two nodes, over 100 Mbit/s for more. Needs root or user namespaces; else it says so and
# succeeds.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Lab 'isolated';

my ($arch) = `uname -m` =~ /(\w+)/;
my $bench = ($ENV{DAIR_BUILD} || "build/$arch") . '/tests/bench_gather';
my $seconds = $ENV{BENCH_GATHER_SECONDS} || 1;
my $parts = $ENV{BENCH_GATHER_PARTS} || '1088,2176,4352,2176x64';
my @counts = split /,/, $ENV{BENCH_GATHER_NODES} || '2,4,8';
my $lab = Lab->new(nodes => 8);

sub gathers {
    my ($n) = @_;
    my @address = map { $lab->address($_) } 1 .. $n;
    my @node = map { $lab->start($_, [$bench, $_ - 1, 7700, $seconds, $parts, @address]) } 1 .. $n;
    for my $p (@node) {
        my $ended = eval { await { defined $lab->status($p) } 60 + 20 * $seconds, 'it ends' };
        die "node $p->{node}: " . ($ended ? "status $p->{status}" : 'hangs') . ' ' . $lab->err($p) . "\n"
            if !$ended || $p->{status};
    }
    print $lab->out($node[0]);
}

$| = 1;
gathers($_) for grep { $_ == 2 } @counts;
$lab->rate($_, '100mbit', burst => 6000, latency => '200ms') for 1 .. 8;
gathers($_) for grep { $_ > 2 } @counts;
