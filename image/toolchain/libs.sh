#!/bin/sh
# libs.sh OUT <LIST - the third-party libraries, static, for both machines, with TC's compilers.
# OUT gets include/, ARCH/lib*.a, src/NAME (its file `members` lists what to compile, and how) and
# licences/NAME.
# libs.sh --host LIBS NAME COMPILER FLAGS OUT.a - one of them again, with the host's compiler.
# To add one: a line in libs.lock, a paragraph here, its name in the Makefile's LIB.
set -eu

# archive SRC COMPILER FLAGS AR OUT.a: what SRC/members lists; ./*.o keeps the order of members fixed
archive() {
    o=${5%.a}.tmp
    rm -rf "$o"
    mkdir -p "$o"
    # shellcheck disable=SC2016
    (cd "$1" && O=$o CC=$2 FLAGS=$3 xargs -P "$(nproc)" -L 1 \
        sh -c '$CC $FLAGS "$@" -c -o "$O/$(basename "$0" .c).o" "$0"' <members)
    rm -f "$5"
    (cd "$o" && "$4" rcsD "$5" ./*.o)
    rm -rf "$o"
}

if [ "$1" = --host ]; then
    archive "$2/src/$3" "$4" "$5" ar "$(CDPATH='' cd -- "$(dirname -- "$6")" && pwd -P)/${6##*/}"
    exit
fi

out=$(CDPATH='' cd -- "$1" && pwd -P)
list=$(cat)
flags="-O2 -g0 -std=gnu11 -ffunction-sections -fdata-sections -fno-pie -ffile-prefix-map=$out=/libs -ffile-prefix-map=$TC=/tc"
mkdir -p "$out/include" "$out/licences" "$out/x86_64" "$out/aarch64"

# unpack NAME [DEBIAN-NAME [TAR-WORD...]]: the source, or what of it tar is told, into src/NAME. apt's helper
# reads bzip2 and xz, which a bare host cannot; it goes by the file's name.
unpack() {
    name=$1 file=$(echo "$list" | sed -n "s|^${2:-$1}:source ||p")
    shift "$(($# > 1 ? 2 : 1))"
    mkdir -p "$out/src/$name"
    case $(head -c 3 "$file" | tr -d '\375') in
    BZh) end=.bz2 ;;
    7z) end=.xz ;;
    *) end=.gz ;;
    esac
    ln -s "$file" "$out/$name$end"
    /usr/lib/apt/apt-helper cat-file "$out/$name$end" | tar -x -C "$out/src/$name" --strip-components=1 "$@"
    rm "$out/$name$end"
}

# build NAME FLAGS FILE...: lib NAME.a for both machines
build() {
    name=$1 extra=$2
    shift 2
    for file; do echo "$file $extra"; done >"$out/src/$name/members"
    for arch in x86_64 aarch64; do
        archive "$out/src/$name" "$TC/bin/$arch-linux-musl-gcc" "$flags" \
            "$TC/bin/$arch-linux-musl-ar" "$out/$arch/lib$name.a"
    done
}

# keep NAME FIND-TEST...: of src/NAME only the files that a compiler reads
keep() {
    dir=$out/src/$1
    shift
    find "$dir" -type f ! -name members ! \( "$@" \) -delete
    find "$dir" -mindepth 1 -type d -empty -delete
}

unpack utf8proc # MIT; utf8proc.c includes its tables
build utf8proc -DUTF8PROC_STATIC utf8proc.c
cp "$out/src/utf8proc/utf8proc.h" "$out/include/"
cp "$out/src/utf8proc/LICENSE.md" "$out/licences/utf8proc"
keep utf8proc -name 'utf8proc*.[ch]'

unpack yyjson # MIT; its header says what is left out, so that those who include it know
{
    echo '#define YYJSON_DISABLE_UTILS 1'
    echo '#define YYJSON_DISABLE_NON_STANDARD 1'
    cat "$out/src/yyjson/src/yyjson.h"
} >"$out/include/yyjson.h"
cp "$out/include/yyjson.h" "$out/src/yyjson/src/"
cp "$out/src/yyjson/LICENSE" "$out/licences/yyjson"
build yyjson -Isrc src/yyjson.c
keep yyjson -path '*/src/yyjson.[ch]'

unpack mbedtls # Apache-2.0; most of these files are empty with mbedtls.conf.h
mbedtls=$out/src/mbedtls
cp "$(dirname "$0")/mbedtls.conf.h" "$mbedtls/include/mbedtls/mbedtls_config.h"
cp -R "$mbedtls/include/mbedtls" "$mbedtls/include/psa" "$out/include/"
cp "$(dirname "$0")/mbedtls.alt.h" "$mbedtls/include/chachapoly_alt.h"
cp "$mbedtls/include/"*_alt.h "$out/include/"
cp "$mbedtls/LICENSE" "$out/licences/mbedtls"
# Not what its configuration leaves empty.
# shellcheck disable=SC2046
build mbedtls '-Iinclude -Ilibrary' $(cd "$mbedtls" && find library -name '*.c' | LC_ALL=C sort |
    grep -vE '/(aes|aria|camellia|des|ccm|gcm|cmac|ctr_|hmac_|dhm|ec(dsa|jpake)|lm|mps|net_|nist|oid|padlock|pe?[mk]|psa_its|rsa|sha[13]|md5|ripe|ssl_(cache|cookie|ticket|tls12)|debug|timing|x509)')
keep mbedtls -path '*/library/*.[ch]' -o -path '*/include/*.h'

# ISC. ChaCha20-Poly1305 for Mbed TLS (mbedtls.alt.c); nothing else of it is unpacked.
unpack boringssl android-platform-external-boringssl --wildcards '*/linux-*64/crypto/cipher_extra/chacha20_poly1305_*.S' \
    '*/src/include/openssl/arm_arch.h' '*/src/crypto/cipher_extra/asm/chacha20_poly1305_*.pl'
boringssl=$out/src/boringssl
cp "$(dirname "$0")/mbedtls.alt.c" "$boringssl/"
cp -R "$mbedtls/include/mbedtls" "$mbedtls/include/psa" "$mbedtls/include/"*_alt.h "$boringssl/src/include/"
# Their licence stands at the head of the scripts that they are made by.
sed -s -n '/^# Copyright/,/^###/s/^# \{0,1\}//p' "$boringssl"/src/crypto/cipher_extra/asm/*.pl |
    grep -v '^#' >"$out/licences/boringssl"
# shellcheck disable=SC2046
build boringssl -Isrc/include mbedtls.alt.c $(cd "$boringssl" && find linux-* -name '*.S' | LC_ALL=C sort)
keep boringssl -name '*.[chS]'

# LGPL-2.1+ or eCos, as one likes. Configured once for both machines and the host: what it finds is
# the same for all, and as for another machine (--host), so that it runs no program to find out. It
# insists on a pkg-config, of which it then asks nothing.
unpack microhttpd libmicrohttpd
mhd=$out/src/microhttpd
(cd "$mhd" && ./configure --build=x86_64-linux-gnu --host=aarch64-linux-musl --disable-dependency-tracking \
    PKG_CONFIG=true CC="$TC/bin/aarch64-linux-musl-gcc" AR="$TC/bin/aarch64-linux-musl-ar" RANLIB=: CFLAGS=-O2 \
    mhd_cv_works_func_eventfd=yes --disable-shared --enable-static --disable-nls --disable-https --disable-doc \
    --disable-examples --disable-tools --disable-curl --disable-bauth --disable-dauth \
    --disable-postprocessor --disable-cookie --disable-httpupgrade >configure.log 2>&1) || {
    tail -n 20 "$mhd/configure.log" >&2
    exit 1
}
cp "$mhd/src/include/microhttpd.h" "$out/include/"
cp "$mhd/COPYING" "$out/licences/microhttpd"
# The files that this configuration's Makefile names.
build microhttpd '-I. -Isrc/include -Isrc/microhttpd -DBUILDING_MHD_LIB=1 -DNDEBUG -D_GNU_SOURCE -fno-strict-aliasing' $(
    for f in connection reason_phrase daemon internal memorypool mhd_mono_clock mhd_str mhd_send \
        mhd_sockets mhd_itc mhd_compat mhd_panic response mhd_threads; do echo "src/microhttpd/$f.c"; done
)
keep microhttpd -path '*/src/microhttpd/*.[ch]' -o -path '*/src/include/*.h' -o -name MHD_config.h
