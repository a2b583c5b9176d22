#!/bin/sh
# tc.sh OUT <LIST - two C compilers for musl out of a distribution's own packages.
# LIST has lines "name file" from fetch.sh. The packages are unpacked, not installed. A specs file
# turns the distribution's GCC to musl's headers, start files and libc. GCC itself is not rebuilt;
# its OpenMP runtime is, because the packaged one wants another libc.
# Left out on purpose: LTO, C++, shared objects, sanitizers.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
out=$(CDPATH='' cd -- "$1" && pwd -P)
list=$(cat)
mkdir "$out/bin" "$out/tmp"
[ "$(uname -m)" = x86_64 ] || {
    echo "dair: the compilers are programs for x86_64; build there, with ARCH=$(uname -m) for this machine" >&2
    exit 1
}

file() { echo "$list" | sed -n "s|^$1 ||p"; }

echo "  unpacking" >&2
echo "$list" | while read -r name deb; do
    case $name in
    gcc-12-source:*) continue ;;
    musl-dev:* | linux-libc-dev-*) to=$out/tmp/$name ;;
    *) to=$out ;;
    esac
    mkdir -p "$to"
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$to" --exclude='./usr/share/*' --exclude='*/lto1' --exclude='*lto-dump*' \
        --exclude='*ld.gold' --exclude='*/libgomp.*' --exclude='*/lib*san*'
done

# The native GCC would take `as` and `ld` from the host's PATH; here it looks first.
mkdir -p "$out/usr/x86_64-linux-gnu/bin"
for t in as ld; do ln -s "../../bin/x86_64-linux-gnu-$t" "$out/usr/x86_64-linux-gnu/bin/$t"; done

tool() { # tool TEMPLATE NAME: a wrapper, which finds its own folder, so the tree can be moved
    sed "s/@ARCH@/$arch/g; s/@TOOL@/$2/g" "$here/$1" >"$out/bin/$arch-linux-musl-$2"
    chmod 755 "$out/bin/$arch-linux-musl-$2"
}

for arch in x86_64 aarch64; do
    case $arch in x86_64) deb=amd64 errata='' ;; *) deb=arm64 errata=' --fix-cortex-a53-843419' ;; esac
    sys=$out/sys/$arch
    mkdir -p "$sys"
    mv "$out/tmp/musl-dev:$deb/usr/include/$arch-linux-musl" "$sys/include"
    mv "$out/tmp/musl-dev:$deb/usr/lib/$arch-linux-musl" "$sys/lib"
    rm -f "$sys/lib/musl-gcc.specs" "$sys/lib/libc.so"
    for h in linux asm asm-generic mtd misc; do
        k=$out/tmp/linux-libc-dev-$deb-cross:all/usr/$arch-linux-gnu/include/$h
        [ ! -d "$k" ] || cp -a "$k" "$sys/include/"
    done
    sed "s/@ERRATA@/$errata/" "$here/musl.specs.in" >"$sys/musl.specs"
    tool gcc.in gcc
    for t in ar as ld nm ranlib strip objcopy objdump readelf size; do tool tool.in $t; done
done

echo 'int main(void) { return 0; }' >"$out/tmp/try.c"
"$out/bin/x86_64-linux-musl-gcc" -c -o "$out/tmp/try.o" "$out/tmp/try.c" || {
    echo "dair: the compilers do not start here; they need glibc 2.36 or later (Debian 12 or its like)" >&2
    exit 1
}
for arch in x86_64 aarch64; do
    for t in as ld; do
        case $("$out/bin/$arch-linux-musl-gcc" -print-prog-name=$t) in
        "$out"/*) ;;
        *)
            echo "dair: the $arch compiler does not find its own $t" >&2
            exit 1
            ;;
        esac
    done
done

# Of the compiler's source, 83 MB, libgomp and what its configure reads: the rest is not kept.
src=$(file gcc-12-source:all)
case $src in
*.cut) ;;
*)
    cut=$out/tmp/cut
    mkdir "$cut"
    dpkg-deb --fsys-tarfile "$src" |
        tar -xO --wildcards './usr/src/gcc-12/gcc-12*.tar.xz' | xz -dc -T0 |
        tar -x -C "$cut" --strip-components=1 --wildcards --no-wildcards-match-slash \
            '*/*.sh' '*/config*' '*/*.m4' '*/install-sh' '*/missing' '*/depcomp' '*/compile' \
            '*/mkinstalldirs' '*/move-if-change' '*/COPYING3' '*/COPYING.RUNTIME' \
            '*/gcc/BASE-VER' '*/gcc/DATESTAMP' '*/include' '*/libgomp'
    rm -rf "$cut/libgomp/testsuite"
    mkdir "$cut/libgomp/testsuite" # configure writes these, and wants to find their models
    for f in Makefile.in libgomp-test-support.exp.in libgomp-site-extra.exp.in; do
        : >"$cut/libgomp/testsuite/$f"
    done
    tar -c -C "$cut" . | gzip -9n >"$src.cut.part"
    mv "$src.cut.part" "$src.cut"
    rm -rf "$cut" "$src"
    src=$src.cut
    ;;
esac
mkdir "$out/tmp/gcc"
tar -xzf "$src" -C "$out/tmp/gcc"

omp() { # omp ARCH: libgomp.a and omp.h into its sysroot
    t=$1-linux-musl b=$out/tmp/gomp-$1
    mkdir -p "$b/members"
    cd "$b"
    if ! {
        "$out/tmp/gcc/libgomp/configure" --build=x86_64-pc-linux-gnu --host="$t" --target="$t" \
            --prefix=/ --disable-multilib --disable-shared --enable-static --with-pic \
            --enable-linux-futex --disable-werror --disable-maintainer-mode \
            --disable-dependency-tracking CC="$t-gcc" AR="$t-ar" RANLIB="$t-ranlib" NM="$t-nm" \
            STRIP="$t-strip" FC=no CFLAGS="-O2 -g0 -fPIE -ffile-prefix-map=$out/tmp/gcc=/gcc \
                -ffile-prefix-map=$b=/b -ffile-prefix-map=$out=/tc" &&
            make -j2 MAKEINFO=true AR_FLAGS=rcsD ARFLAGS=rcsD libgomp.la omp.h libgomp.spec
    } >log 2>&1; then
        tail -n 20 log >&2
        exit 1
    fi
    # libtool's archive has the order of the build; ours is sorted.
    cd members
    "$t-ar" x ../.libs/libgomp.a
    "$t-ar" rcsD "$out/sys/$1/lib/libgomp.a" ./*.o
    cp ../omp.h "$out/sys/$1/include/"
    # The driver reads this file at -fopenmp and looks for it in its own folder only.
    echo '*link_gomp: -lgomp' >"$(dirname "$("$t-gcc" -print-libgcc-file-name)")/libgomp.spec"
}
echo "  building the OpenMP runtime for x86_64 and aarch64" >&2
PATH=$out/bin:$PATH
omp x86_64 &
first=$!
omp aarch64 &
wait $first
wait $!
mkdir "$out/licences"
cp "$out/tmp/gcc/COPYING3" "$out/tmp/gcc/COPYING.RUNTIME" "$out/licences/"
rm -rf "$out/tmp"
