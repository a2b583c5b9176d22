#!/bin/sh
# libs.sh OUT <LIST - the third-party libraries, static, for both machines, with TC's compilers.
# OUT gets include/, ARCH/lib*.a, src/NAME (for builds with the host's compiler) and licences/NAME.
# To add one: a line in libs.lock and a paragraph here.
set -eu
out=$(CDPATH='' cd -- "$1" && pwd -P)
list=$(cat)
flags="-O2 -g0 -std=gnu11 -ffunction-sections -fdata-sections -fno-pie -ffile-prefix-map=$out=/libs -ffile-prefix-map=$TC=/tc"
mkdir -p "$out/include" "$out/licences" "$out/x86_64" "$out/aarch64"

# unpack NAME: the source into src/NAME
unpack() {
    mkdir -p "$out/src/$1"
    tar -xf "$(echo "$list" | sed -n "s|^$1:source ||p")" -C "$out/src/$1" --strip-components=1
}

# build NAME FLAGS FILE...: lib NAME.a for both machines, members in the order given
build() {
    name=$1 extra=$2
    shift 2
    for arch in x86_64 aarch64; do
        o=$out/tmp-$arch-$name
        mkdir "$o"
        for c; do
            # shellcheck disable=SC2086
            "$TC/bin/$arch-linux-musl-gcc" $flags $extra -c -o "$o/$(basename "$c" .c).o" "$out/src/$name/$c"
        done
        (cd "$o" && "$TC/bin/$arch-linux-musl-ar" rcsD "$out/$arch/lib$name.a" ./*.o)
        rm -rf "$o"
    done
}

unpack utf8proc # MIT; utf8proc.c includes its tables
build utf8proc -DUTF8PROC_STATIC utf8proc.c
cp "$out/src/utf8proc/utf8proc.h" "$out/include/"
cp "$out/src/utf8proc/LICENSE.md" "$out/licences/utf8proc"
find "$out/src/utf8proc" -mindepth 1 -maxdepth 1 ! -name "utf8proc*.[ch]" -exec rm -rf {} +
