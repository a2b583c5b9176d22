#!/usr/bin/perl
# boot.t - the program as the first process of a machine: Debian's kernel, overlay/init and dair in
# an initramfs, under QEMU without acceleration, for both architectures. It says READY on the serial
# console and answers on the network, the same text on both; without a network card it gets as far.
#
# $DAIR_BOOT holds kernels and busybox (image/toolchain/boot.sh).
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Path qw(make_path);
use POSIX ();
use Lab ();
use Lab qw(await now gather);
use Test::More;

my $limit = 120;    # seconds to READY, on a machine that does other things too; usually under ten
$ENV{DAIR_BIN} //= 'build/' . (POSIX::uname())[4] . '/dair';
my $kit   = $ENV{DAIR_BOOT} // '';
my $build = dirname($ENV{DAIR_BUILD} || 'build/x');
my %machine = (
    x86_64  => [split(' ', 'qemu-system-x86_64 -M q35 -accel tcg -cpu max'), 'ttyS0'],
    aarch64 => [split(' ', 'qemu-system-aarch64 -M virt,gic-version=3 -accel tcg,tb-size=256 -cpu cortex-a53'), 'ttyAMA0'],
);
plan skip_all => 'no kernels here: run it by `make test`' unless -e "$kit/ok";

# With a key it is a cluster of one; without, it would be ALONE.
chomp(my $key = `"\$DAIR_BIN" keygen` // '');
plan skip_all => 'dair is not built' if $key eq '';

# The initramfs of ARCH: the overlay, drivers, busybox, dair and what CONFIG says.
sub initramfs {
    my ($lab, $arch, $config) = @_;
    my ($root, $file) = ("$lab->{dir}/root-$arch", "$lab->{dir}/initramfs-$arch");
    make_path("$root/bin", "$root/lib/modules", "$root/etc");
    my %there = ("$kit/$arch/busybox" => 'bin/busybox', "$build/$arch/dair" => 'bin/dair',
        map { $_ => 'lib/modules/' . s{.*/}{}r } glob "$kit/$arch/modules/*");
    for my $f (sort keys %there) {
        copy($f, "$root/$there{$f}") or die "$f: $!";
        chmod 0755, "$root/$there{$f}" if $there{$f} =~ m{^bin/};
    }
    open my $h, '>', "$root/etc/dair.conf" or die $!;
    print $h $config;
    close $h or die $!;
    # Of the overlay's models none: the program carries its own.
    make_path("$lab->{dir}/overlay");
    system(qw(cp -a overlay/.), "$lab->{dir}/overlay") == 0 or die 'cp';
    unlink glob "$lab->{dir}/overlay/usr/share/dair/*.gguf";
    system($^X, 'image/cpio.pl', $file, "$lab->{dir}/overlay", $root) == 0 or die 'cpio.pl';
    return $file;
}

# Boots ARCH; with a card, HTTP of the guest is port 8080 of the lab's node.
sub boot {
    my ($lab, $arch, $initramfs, $card) = @_;
    my @words = @{$machine{$arch}};
    my $tty   = pop @words;
    my @net = $card ? ('-netdev', 'user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:' . $lab->port(1, 8080) . '-:8080',
        '-device', 'virtio-net-pci,netdev=n,romfile=') : ();
    return $lab->start(1, ['sh', '-c', 'exec "$@" 2>&1', 'sh', @words, qw(-smp 1 -m 384 -nodefaults -no-user-config
        -display none -serial stdio -no-reboot), '-kernel', "$kit/$arch/vmlinuz", '-initrd', $initramfs,
        '-append', "console=$tty panic=-1 quiet loglevel=4", @net]);
}

# Waits for PATTERN on the console; a panic or QEMU's end is the end of waiting.
sub says {
    my ($lab, $vm, $pattern, $seconds) = @_;
    my $seen = eval {
        await {
            my $ended = !$lab->is_running($vm);
            my $text  = $lab->out($vm);
            $text =~ $pattern ? 'yes' : $ended || $text =~ /Kernel panic/ ? 'no' : '';
        } $seconds;
    } // 'no';
    return $seen eq 'yes';
}

my %text;
for my $arch (qw(x86_64 aarch64)) {
    SKIP: {
        my ($emulator) = @{$machine{$arch}};
        skip "no $emulator here", 5 unless Lab::tool($emulator);
        skip "$build/$arch/dair is not built", 5 unless -x "$build/$arch/dair";
        my $lab = Lab->new(nodes => 1, on => 'lo');
        my $initramfs = initramfs($lab, $arch, "cluster_key = $key\nmemory = 64M\nthreads = 1\n");

        my $vm = boot($lab, $arch, $initramfs, 1);
        my $ready = says($lab, $vm, qr/\bREADY\b/, $limit);
        ok($ready, sprintf '%s: READY after %.1f s', $arch, now() - $vm->{begun});
        my $health = $ready && eval { await { $lab->http(1, GET => '/health', seconds => 20) } 60, 'GET /health' };
        is($health ? $health->{status} : $@, 200, "$arch: it answers on the network");
        my $body = '{"prompt": "A node", "max_tokens": 12, "temperature": 0}';
        my $answer = $health && eval { $lab->http(1, POST => '/v1/completions', body => $body, seconds => 60) };
        ($text{$arch}) = ($answer ? $answer->{body} : '') =~ /"text"\s*:\s*"((?:[^"\\]|\\.)+)"/;
        ok(defined $text{$arch}, "$arch: with a text") or diag($answer ? $answer->{body} : $@);
        ok($lab->is_running($vm), "$arch: and goes on");
        diag(substr $lab->out($vm), -3000) unless $health;
        $lab->kill_now($vm);

        $vm = boot($lab, $arch, $initramfs, 0);
        ok(says($lab, $vm, qr/\bREADY\b/, $limit), sprintf '%s without a network card: READY after %.1f s', $arch, now() - $vm->{begun})
          or diag(substr $lab->out($vm), -3000);
        $lab->kill_now($vm);
    }
}
SKIP: {
    skip 'one text or none', 1 if keys %text < 2;
    is($text{aarch64}, $text{x86_64}, 'the same text from both');
}
done_testing();
