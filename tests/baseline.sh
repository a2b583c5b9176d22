#!/bin/sh
# baseline.sh - TAP: the programs are static, keep to their baseline outside of the kernels' variants,
# give every thread a real stack, and compute tokens without libm. Wants build/ARCH/dair and dair.elf,
# dair.map, and the objects, of both machines.
# An emulator cannot show this: its old cores know instructions that the boards lack.
cd "$(dirname "$0")/.." || exit 2
n=0
ok() { # ok STATUS NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}
none() { # none NAME TEXT: passes if there is no text
    [ -z "$2" ]; ok $? "$1"
    [ -z "$2" ] || echo "$2" | head -n 20 | sed 's/^/# /'
}

# Prints every instruction beyond the baseline with the function and object it stands in. Which
# object a function comes from is in the linker's map. Beyond the baseline are allowed: the
# variants of the kernels, and what libgcc, libgomp and BoringSSL reach only after asking the CPU.
beyond() {
    "$1objdump" -d --no-show-raw-insn "$2" | perl -e '
        my ($arch, $map) = @ARGV;
        my (@at, %said);
        open my $m, "<", $map or die "$map: $!\n";
        my $in = 0;
        while (<$m>) {
            $in ||= /^Linker script and memory map/;
            next unless $in;
            push @at, [hex $1, hex $2, $3]
              if /^ \.text\S*\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+(\S.*)$/ || /^\s+0x([0-9a-f]{16})\s+0x([0-9a-f]+)\s+(\S.*\.o\)?)$/;
        }
        @at = sort { $a->[0] <=> $b->[0] } grep { $_->[1] } @at;
        my %allowed = (
            x86_64  => qr{kernels/avx\w*\.o|\((?:avx\w*)\.o\)|libboringssl\.a\(chacha20_poly1305_x86_64\S*\.o\)},
            aarch64 => qr{\(dotprod\w*\.o\)|libgcc\.a\((?:cas|ldadd|ldclr|ldeor|ldset|swp)_},
        );
        my %over = (
            x86_64 => qr{^\s*(?:(?:lock|rep\S*|bnd|data16)\s+)*(?:v(?!err|erw)\w+|\w+\s.*%[yz]mm
                |(?:andn|bextr|bls[a-z]+|bzhi|pdep|pext|mulx|rorx|sarx|shlx|shrx|lzcnt|movbe|aes\w+|pclmul\w+
                |sha(?:1|256)\w+|rdrand|rdseed|adcx|adox|xsave\w*|gf2p8\w+)\b)}x,
            aarch64 => qr{^\s*(?:aes\w+|sha\d\w+|pmull2?\s+v\d+\.1q|[su]dot|usdot|[su]mmla|usmmla|bf\w*(?:dot|mmla)\w*
                |sqrdml[as]h|crc32\w+|cas[pab]?\w*|swp\w*|ld(?:add|clr|set|eor|[su]max|[su]min)[abhl]*\s
                |st(?:add|clr|set|eor)[abhl]*\s|f(?:add|sub|mul|div|mla|mls|max|min|abs|neg|cm\w+|maxnm|sqrt)\w*\s+(?:v\d+\.[48]h|h\d)
                |\w+\s+[zp]\d+[.,/]|ldapr\w*|f?j?cvtzs\s+\w+,\s*h\d)\b?}x,
        );
        my $fn = "?";
        while (<STDIN>) {
            if (/^[0-9a-f]+ <(.*)>:/) { $fn = $1; next }
            my ($pc, $op) = /^\s*([0-9a-f]+):\s+(.*)$/ or next;
            $op =~ s/\t/ /g;
            next unless $op =~ $over{$arch};
            my ($lo, $hi, $a) = (0, $#at, hex $pc);
            while ($lo < $hi) { my $k = int(($lo + $hi + 1) / 2); if ($at[$k][0] <= $a) { $lo = $k } else { $hi = $k - 1 } }
            my $o = $at[$lo][2];
            next if $o =~ $allowed{$arch};
            print "$fn ($o): $op\n" if $said{"$fn $o"}++ < 1;
        }' "$3" "$4"
}

# Prints where FILE names ROOT, where it was compiled, or something below ROOT or CACHE. Machine code and
# weights hold any three or four characters by chance, so of a short ROOT only what it has in it tells.
paths() { # paths FILE ROOT CACHE
    perl -0777 -ne '
        BEGIN { ($root, $cache) = map { quotemeta } splice @ARGV, 1 }
        my $inside = "(?:src|kernels|board|build|tests|image|overlay)/";
        my $itself = length $root > 8 ? "|$root\\0" : "";
        while (m{($root/$inside|$cache/$itself)([ -~]{0,80})}g) { printf "%d: %s%s\n", $-[0], $1, $2 }' "$@"
}

# Prints what the objects below BUILD that a token passes through want of libm, whose functions are those
# that MATH_H declares: their last bits differ from library to library, so that two machines would not
# agree. Only these may, as no token passes there:
#   store/cache exp2: the cache's growth by its half-life, once as it is opened
#   engine/engine exp log: engine_score, which says how likely a text is and draws nothing
math() { # math TOOLS ARCH BUILD MATH_H
    for f in kernels/*.c src/nn/*.c src/store/*.c src/engine/*.c src/base/par.c src/model/sampler.c \
        src/model/picker.c src/model/grammar_run.c src/model/model.c src/model/arch.c; do
        case $2:$f in x86_64:kernels/neon* | x86_64:kernels/dotprod* | aarch64:kernels/avx*) continue ;; esac
        "$1nm" -u "$3/${f%.c}.o" 2>&1 | sed "s|^ *[Uwv] |${f%.c} |"
    done | awk '
        BEGIN {
            may["src/store/cache exp2"] = may["src/engine/engine exp"] = may["src/engine/engine log"] = 2
            while ((getline line < ARGV[1]) > 0) {
                if (line ~ /^(double|float|int|long|void)/ && match(line, /[a-z0-9_]+\(/))
                    is[substr(line, RSTART, RLENGTH - 1)] = 1
            }
            if (!is["fmaf"] || !is["exp2"]) print ARGV[1] ": not what a C library declares"
            ARGC = 1
        }
        NF != 2 || $1 !~ /^(kernels|src)\// { print; next } # what nm complains of
        is[$2] && may[$0] { may[$0] = 1; next }
        is[$2]
        END { for (one in may) if (may[one] == 2) print one ": no longer wanted" }' "$4"
}

for arch in x86_64 aarch64; do
    b=build/$arch t=${TC:?}/bin/$arch-linux-musl-
    [ -e $b/dair ] || { # `make check` builds for one machine
        n=$((n + 1))
        echo "ok $n - $arch # SKIP not built"
        continue
    }
    none "$arch: no interpreter" "$("${t}readelf" -lW $b/dair | grep INTERP)"
    none "$arch: no library needed" "$("${t}readelf" -dW $b/dair | grep NEEDED)"
    "${t}readelf" -lW $b/dair | grep -q 'GNU_STACK .* 0x200000 RW ' ; ok $? "$arch: stacks of 2 MiB, not executable"
    none "$arch: no section both writable and executable" "$("${t}readelf" -lW $b/dair | grep ' RWE ')"
    none "$arch: no path of this machine" "$(paths "$b/dair.elf" "$PWD" "${TC%/*}")"
    none "$arch: nothing beyond the baseline" "$(beyond "$t" $b/dair.elf $arch $b/dair.map)"
    none "$arch: no token needs libm" "$(math "$t" $arch $b "$TC/sys/$arch/include/math.h")"
    if [ -e overlay/usr/share/dair/demo.gguf ]; then
        "${t}readelf" -SW $b/dair | awk '$2 == ".dair.demo" || $3 == ".dair.demo" { found = 1 } END { exit !found }'
        ok $? "$arch: the demo model is inside"
        "${t}strip" -o "$b/again" $b/dair && "${t}objcopy" -O binary --only-section=.dair.demo --set-section-flags .dair.demo=alloc "$b/again" "$b/demo.out" &&
            cmp -s "$b/demo.out" overlay/usr/share/dair/demo.gguf
        ok $? "$arch: it survives strip, byte for byte"
        rm -f "$b/again" "$b/demo.out"
    fi
done
echo "1..$n"
