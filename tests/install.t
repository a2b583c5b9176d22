#!/usr/bin/perl
# install.t - `make install`, as root would: with a home that has no compiler nothing is fetched or built. Then
# its service: what systemd says of the file, and that the program starts with the words and the surroundings
# that stand there.
use strict;
use warnings;
use FindBin qw($Bin);
use lib $Bin;
use Dair;
use Test::More;

my $dir  = scratch();
my $arch = $ENV{DAIR_ARCH} // 'x86_64';

sub install {
    my ($arch) = @_;
    delete local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS XDG_CACHE_HOME)};
    local $ENV{HOME} = "$dir/home";
    my $said = `make -C $Bin/.. install ARCH=$arch SAN= PREFIX=/opt/dair DESTDIR=$dir/$arch 2>&1`;
    return ($? >> 8, $said);
}
my ($status, $said) = install('none');
isnt($status, 0, 'nothing built: `make install` fails');
like($said, qr{^there is no build/none/dair to install: run make first}m, 'and says what to do first');
ok(!-e "$dir/none" && !-e "$Bin/../build/none", 'and leaves nothing behind');
SKIP: {
    my $built = "$Bin/../build/$arch/dair";
    skip "there is no $built", 5 unless -x $built;
    my $flags = (stat "$Bin/../build/$arch/flags")[9] // 0;
    ($status, $said) = install($arch);
    is($status, 0, 'built: it is installed') or diag($said);
    ok(-x "$dir/$arch/opt/dair/bin/dair" && -s _ == -s $built, 'the program');
    like(read_file("$dir/$arch/etc/systemd/system/dair.service"), qr{^ExecStart=/opt/dair/bin/dair }m, 'the service that starts it');
    is((stat "$Bin/../build/$arch/flags")[9] // 0, $flags, 'nothing is built for it');
    ok(!-e "$dir/home", 'and nothing fetched');
}

unless (have('systemd-analyze')) {
    diag('there is no systemd-analyze: what follows is not looked at');
    done_testing;
    exit;
}
my $unit = read_file("$Bin/../overlay/usr/lib/systemd/system/dair.service");
my ($path, @words) = split ' ', $unit =~ /^ExecStart=(.*)$/m ? $1 : '';
is($path, '/usr/local/bin/dair', 'it starts what `make install` installs');
write_file("$dir/dair.service", $unit =~ s/^ExecStart=\Q$path\E/ExecStart=$dair/mr);
my @fault = `systemd-analyze verify $dir/dair.service 2>&1`;
is($?, 0, 'systemd takes it') or diag(@fault);
is_deeply([grep { /dair/ } @fault], [], 'and finds no fault with it');  # it may with others of this machine
$said = `systemd-analyze security --offline=yes --threshold=20 --no-pager $dir/dair.service 2>&1`;
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
