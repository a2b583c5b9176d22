#!/usr/bin/perl
# cpio.pl OUT FOLDER... - an initramfs (newc archive, not compressed) of what lies in the folders,
# later ones over earlier ones. The same content gives the same bytes: names sorted, owner root,
# modes 755 or 644, every time $SOURCE_DATE_EPOCH. Needs neither root nor cpio.
use strict;
use warnings;

my ($out, @folders) = @ARGV;
die "usage: cpio.pl OUT FOLDER...\n" unless @folders;
my $time = $ENV{SOURCE_DATE_EPOCH} // 1700000000;

my %from;    # name in the archive -> where it lies
sub gather {
    my ($folder, $under) = @_;
    opendir my $d, "$folder/$under" or die "$folder/$under: $!\n";
    for my $name (grep { !/\A\.\.?\z/ } readdir $d) {
        my $path = $under eq '' ? $name : "$under/$name";
        $from{$path} = "$folder/$path";
        gather($folder, $path) if -d "$folder/$path" && !-l "$folder/$path";
    }
}
gather($_, '') for @folders;

open my $h, '>:raw', "$out.new" or die "$out.new: $!\n";
my $inode = 0;

sub entry {
    my ($name, $mode, $content) = @_;
    my @field = (++$inode, $mode, 0, 0, 1, $time, length $content, 0, 0, 0, 0, 1 + length $name, 0);
    my $head = '070701' . join('', map { sprintf '%08x', $_ } @field) . "$name\0";
    print $h $head, "\0" x (-length($head) % 4), $content, "\0" x (-length($content) % 4);
}

entry('.', 040755, '');    # else / is anyone's to write
for my $name (sort keys %from) {
    my $f = $from{$name};
    if (-l $f) { entry($name, 0120777, readlink $f) }
    elsif (-d $f) { entry($name, 040755, '') }
    elsif (-f $f) {
        open my $in, '<:raw', $f or die "$f: $!\n";
        my $content = do { local $/; <$in> } // '';
        entry($name, -x $f ? 0100755 : 0100644, $content);
    } else {
        die "$f: neither file, folder nor link\n";
    }
}
entry('TRAILER!!!', 0, '');
close $h or die "$out.new: $!\n";
rename "$out.new", $out or die "$out: $!\n";
