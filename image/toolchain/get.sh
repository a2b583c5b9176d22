#!/bin/sh
# get.sh path NAME...  where each part of the kit lies, or will lie, in the cache (touches no network)
# get.sh make NAME     builds that part if it is not there and prints its folder
# Parts: tc (compiler), libs (third-party libraries), qemu (ARM emulator), boot (kernels to boot with).
# Each has NAME.lock, which says what to fetch, and NAME.sh, which turns that into a folder. The folder's name carries a hash
# of everything it is made from, so a changed line makes a new one and nothing is ever stale.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/dair

key() {
    case $1 in
    tc) set -- "$here/tc.lock" "$here/tc.sh" "$here"/*.in ;;
    libs) set -- "$here/libs.lock" "$here/libs.sh" "$here"/*.conf.h "$here"/*.alt.[ch] "$here/tc.lock" "$here/tc.sh" "$here"/*.in ;;
    *) set -- "$here/$1.lock" "$here/$1.sh" ;;
    esac
    for f; do [ ! -f "$f" ] || cat "$f"; done | sha256sum | cut -c1-16
}
dir() { echo "$cache/$1-$(key "$1")"; }

if [ "$1" = path ]; then
    shift
    for part; do dir "$part"; done
    exit
fi

part=$2 to=$(dir "$2")
case $part in
tc) what="the cross compilers and their OpenMP" time="one to four minutes" ;;
libs) what="the third-party libraries" time="a minute" ;;
boot) what="kernels and busybox for the boot test" time="a few seconds" ;;
*) what="the ARM emulator" time="a few seconds" ;;
esac
if [ ! -e "$to/ok" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock -n 9 || {
        echo "dair: another build is filling $cache; waiting for it" >&2
        flock 9
    }
    if [ ! -e "$to/ok" ]; then
        echo "dair: making $what, once for all checkouts, in $to (usually $time beyond the download)" >&2
        list=$(sh "$here/fetch.sh" "$here/$part.lock" "$cache/dl")
        new=$cache/$part.$$
        trap 'rm -rf "$new"' EXIT
        trap 'exit 1' HUP INT TERM
        rm -rf "$cache/$part".[0-9]* "$to" # what a killed build left
        mkdir "$new"
        [ "$part" != libs ] || TC=$(dir tc) && export TC
        # The lock must not outlive us in a child that lingers.
        echo "$list" | MAKEFLAGS='' SOURCE_DATE_EPOCH=1700000000 LC_ALL=C \
            sh "$here/$part.sh" "$new" 9>&- || {
            echo "dair: making $what failed; see above" >&2
            exit 1
        }
        : >"$new/ok"
        mv "$new" "$to"
    fi
fi
echo "$to"
