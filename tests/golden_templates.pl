#!/usr/bin/perl
# golden_templates.pl DIR [chat]: chat templates of DIR/B-chat-templates, rendered by our interpreter,
# against what jinja2 made of them.
#
# rendered/*.json with the message sets of rendered_cases.json, and the lists of cases of the other
# files. chat: the former only, as users get them, with what chat.c does about templates that differ. What `template NAME` in tests/supported.txt does not list counts as unsupported.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Golden;
use File::Basename;

my ($dir, $way) = @ARGV or die "usage: golden_templates.pl DIR [chat]\n";
my $data = "$dir/B-chat-templates";
my $driver = ($ENV{DAIR_BUILD} || 'build/x86_64') . '/tests/golden_' . ($way // 'jinja');
my %listed = listed('template');
my ($passed, $failed, $unsupported, $bad) = (0, 0, 0, 0);

# The cases of one file.
sub run {
    my ($part, @files) = @_;
    my ($ok, $n) = (0, 0);
    open my $out, '-|', $driver, ($way ? () : $part), @files or die "$driver: $!\n";
    while (<$out>) {
        $n++;
        if (/^ok/) { $ok++ }
        elsif ($listed{$part}) { print 'not ok - ', basename($files[0]), ' ', substr($_, 7) }
    }
    close $out;
    if ($? || !$n) {
        print "not ok - ", basename($files[0]), ": the driver ended with status $?\n";
        $n++;
        $bad++;
    }
    seen('template', $part);
    if (!$listed{$part}) { $unsupported += $n; return }
    $passed += $ok;
    $failed += $n - $ok;
    $bad += $n - $ok;
}

-x $driver or die "$driver is not built\n";
my %parts = (e2e => 'hfjs_chat_templates_e2e', syntax => 'hfjs_jinja_syntax',
             errors => 'jinja_errors', llamacpp => 'llamacpp_test_chat_template');
run($way // 'rendered', $_, "$data/rendered_cases.json") for sort glob "$data/rendered/*.json";
for my $part (sort keys %parts) {
    run($part, "$data/$parts{$part}.json") if !$way && -e "$data/$parts{$part}.json";
}
print "B-chat-templates: $passed passed, $failed failed, $unsupported unsupported\n";
exit($bad ? 1 : 0);
