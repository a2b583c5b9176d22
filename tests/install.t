#!/usr/bin/perl
# install.t - the service of `make install`: what systemd says of its file, and that the program starts
# with the words and the surroundings that stand there.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Dair;
use Test::More;

plan skip_all => 'there is no systemd-analyze' unless have('systemd-analyze');
my $dir  = scratch();
my $unit = read_file("$Bin/../overlay/usr/lib/systemd/system/dair.service");
my ($path, @words) = split ' ', $unit =~ /^ExecStart=(.*)$/m ? $1 : '';
is($path, '/usr/local/bin/dair', 'it starts what `make install` installs');
write_file("$dir/dair.service", $unit =~ s/^ExecStart=\Q$path\E/ExecStart=$dair/mr);
my @fault = `systemd-analyze verify $dir/dair.service 2>&1`;
is($?, 0, 'systemd takes it') or diag(@fault);
is_deeply([grep { /dair/ } @fault], [], 'and finds no fault with it');  # it may with others of this machine
my $said = `systemd-analyze security --offline=yes --threshold=20 --no-pager $dir/dair.service 2>&1`;
SKIP: {
    skip 'this systemd-analyze looks at running services only', 1 if $said =~ /unrecognized option|Unknown option/;
    is($?, 0, 'its exposure is 2.0 of 10 at most') or diag($said);
}

# As systemd would: its words, its state folder.
my %env = $unit =~ /^Environment=(\w+)=(.*)$/mg;
s/%S/$dir/ for values %env;
my $run = begin([@words, qw(--memory 64M --threads 1 --interface lo --port), 20000 + $$ % 10000, '--cluster-port', 0],
    enter => sub { @ENV{keys %env} = values %env; delete $ENV{DAIR_CLUSTER_KEY}; delete $ENV{HOME} });
my $log = sub { read_file($run->{err_file}->filename) };
for (my $until = time + 30; time < $until && $log->() !~ /ALONE: this/; select undef, undef, undef, 0.05) { }
like($log->(), qr/ALONE: this node serves/, 'the node serves');
ok(-s "$dir/dair/node-id", 'and keeps its id in the folder of the service');
kill 'TERM', $run->{pid};
is(finish($run, 20)->{status}, 0, 'asked to stop, it ends in good order');
done_testing;
