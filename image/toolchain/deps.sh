#!/bin/sh
# deps.sh GROUP... - what the named work needs from the host; installs what is missing, with apt.
# Groups: build test interop boot (machines in an emulator) lint host (sanitizers) fuzz
# mca (predictions for ARM cores). Silent when all is there.
set -eu

fail() {
    echo "dair: $*" >&2
    exit 1
}

need() { # need PACKAGE TEST...
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
have() { command -v "$1"; }
admin() { PATH=$PATH:/usr/sbin:/sbin command -v "$1"; } # not on everyone's PATH
libc() { [ -e /usr/include/stdio.h ]; } # a compiler may be there without it
fuzzer() { find "$(clang -print-resource-dir)/lib/" -name 'libclang_rt.fuzzer*' | grep .; }

check() { # check GROUP...: what they lack, into $missing
    missing=''
    for group; do
        case $group in
        build) need xz-utils have xz ;;
        test)
            need perl have prove
            need strace have strace
            need iproute2 admin ip
            need iproute2 admin tc
            ;;
        interop) # other people's mDNS, for mdns.t; a pipeline wants it, a user's machine need not have it
            need avahi-daemon admin avahi-daemon
            need avahi-utils have avahi-browse
            need dbus have dbus-daemon
            need npm have npm
            ;;
        boot)
            need qemu-system-x86 have qemu-system-x86_64
            need qemu-system-arm have qemu-system-aarch64
            ;;
        lint) for tool in clang clang-format clang-tidy cppcheck; do need $tool have $tool; done ;;
        host)
            need gcc have gcc
            need libc6-dev libc
            ;;
        fuzz)
            need gcc have gcc
            need libc6-dev libc
            need clang have clang
            need libclang-rt-dev fuzzer
            ;;
        mca) need llvm-19 have llvm-mca-19 ;; # older ones take a Cortex-A76 for an A57
        *) fail "deps.sh: no such group: $group" ;;
        esac
    done
    missing=$(echo "$missing" | xargs -n 1 | sort -u | xargs)
    [ -n "$missing" ]
}

check "$@" || exit 0
# Several rules of one make may come here at once.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dair
mkdir -p "$cache"
exec 9>"$cache/deps.lock"
flock 9
check "$@" || exit 0

command -v apt-get >/dev/null || fail "this needs $missing, and there is no apt here to install them"
root=''
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "this needs packages; as root: apt-get install $missing"
    root=sudo
fi
echo "dair: installing with apt: $missing" >&2
apt() {
    # RUNLEVEL=1: what comes with a service is installed, but not started.
    $root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        "$@" </dev/null >/dev/null 9>&-
}
find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | grep -q . || apt update
# shellcheck disable=SC2086
apt install -y --no-install-recommends $missing || {
    apt update
    apt install -y --no-install-recommends $missing
}
