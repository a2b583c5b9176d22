# Golden.pm - what the parts of golden.pl share: files, what tests/supported.txt lists, and what of it was tried.
package Golden;
use strict;
use warnings;
use Exporter 'import';
use File::Basename;

our @EXPORT = qw(slurp listed seen unseen);

sub slurp { my $f = shift; open my $h, '<:raw', $f or return; local $/; return scalar(<$h>) // '' }

# What is listed, as [kind, name] in its order.
sub all_listed {
    my $file = dirname(__FILE__) . '/supported.txt';
    my $text = slurp($file) // die "$file: $!\n";
    return map { s/#.*//r =~ /^\s*(\S+)\s+(\S+)/ ? [$1, $2] : () } split /\n/, $text;
}

# The names of a kind, each to 1.
sub listed {
    my $kind = shift;
    return map { $_->[0] eq $kind ? ($_->[1] => 1) : () } all_listed();
}

# Something of this kind was judged, one way or the other: golden.pl is told by the file GOLDEN_SEEN.
sub seen {
    my ($kind, $name) = @_;
    return if !$ENV{GOLDEN_SEEN};
    open my $h, '>>', $ENV{GOLDEN_SEEN} or return;
    print $h "$kind $name\n";
}

# What is listed and was not judged.
sub unseen {
    my %seen = map { $_ => 1 } split /\n/, slurp($ENV{GOLDEN_SEEN}) // '';
    return grep { !$seen{$_} } map { "$_->[0] $_->[1]" } all_listed();
}

1;
