#!/usr/bin/perl
# sanitized.t: the hostile files once more, with the program that checks every access (DAIR_ASAN).
use strict;
use warnings;
use File::Basename;

my $bin = $ENV{DAIR_ASAN} || '';
if (!-x $bin) { print "1..0 # SKIP no sanitizer build (make test makes one)\n"; exit 0 }
$ENV{DAIR_BIN} = $bin;
exec $^X, dirname(__FILE__) . '/malformed.t' or die "malformed.t: $!\n";
