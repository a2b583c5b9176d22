#!/bin/sh
# repin.sh - rewrite every line of the lock files to the newest version its suite has.
# What a suite has is read from the archive's index, which apt fetches and whose signature it checks
# with the distribution's keys; apt's own configuration gives address, keys and proxies. All of it
# happens in a folder of the cache: the system's apt knows nothing of it.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dair
base=$(sh "$here/fetch.sh" --pool)
keys=$(apt-get indextargets --no-release-info --format '$(SIGNED_BY)' 'Created-By: Packages' | grep -m 1 '^/' || :)
tmp=$cache/repin
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# suite NAME: apt with that suite alone in view, afterwards as $apt
suite() {
    dir=$tmp/$1
    apt="-o Dir::Etc::SourceList=$dir/sources -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$dir/lists
        -o Dir::Cache=$dir/cache -o Dir::State::Status=/dev/null -o Dir::Etc::Preferences=/dev/null
        -o Dir::Etc::PreferencesParts=/dev/null -o APT::Sandbox::User=root -o Acquire::Languages=none
        -o APT::Architecture=amd64 -o APT::Architectures=amd64,arm64"
    [ ! -d "$dir" ] || return 0
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    for type in deb deb-src; do
        echo "$type ${keys:+[signed-by=$keys]} $base/ $1 main"
    done >"$dir/sources"
    echo "dair: reading the index of $1" >&2
    # apt only warns when an index is out of reach or not signed; here that is the end.
    # shellcheck disable=SC2086
    apt-get $apt -qq -o APT::Update::Error-Mode=any update >&2 || {
        echo "dair: apt could not read or verify $1 at $base" >&2
        exit 1
    }
}

# newest NAME:ARCH: "sha256 size path" of it in the suite at hand; an @ in NAME is the newest version
newest() {
    case $1 in
    *@*)
        tail=${1#*@}
        # shellcheck disable=SC2086
        found=$(apt-cache $apt pkgnames "${1%%@*}" | grep -E "^${1%%@*}[0-9][0-9a-z.+-]*${tail%:*}\$" | sort -V | tail -n 1)
        [ -n "$found" ] || return 0
        set -- "$found:${1##*:}"
        ;;
    esac
    # shellcheck disable=SC2086
    case $1 in
    *:source) apt-cache $apt showsrc --only-source "${1%:*}" | awk '
        /^Directory:/ { dir = $2 }
        /^[^ ]/ { sums = /^Checksums-Sha256:/ }
        sums && $3 ~ /\.orig\.tar\.[a-z0-9]+$/ { sum = $1; size = $2; file = $3 }
        END { if (file) print sum, size, dir "/" file }' ;;
    *) apt-cache $apt show --no-all-versions "$(echo "$1" | sed 's/:all$//')" | awk '
        /^Filename:/ { path = $2 } /^Size:/ { size = $2 } /^SHA256:/ { sum = $2 }
        END { if (path) print sum, size, path }' ;;
    esac
}

changed=''
for lock in tc libs qemu boot; do
    new=$tmp/$lock.lock
    mkdir -p "$tmp"
    while read -r name where sum size path; do
        case $name in
        '#'* | '') printf '%s\n' "$name${where:+ $where}${sum:+ $sum}${size:+ $size}${path:+ $path}" ;;
        *)
            suite "$where"
            now=$(newest "$name")
            [ -n "$now" ] || {
                echo "dair: $where has no $name; the old line stays" >&2
                now="$sum $size $path"
            }
            # shellcheck disable=SC2086
            printf '%-32s %-9s %s %9s %s\n' "$name" "$where" $now
            [ "$now" = "$sum $size $path" ] || echo "  $name: ${path##*/} -> ${now##*/}" >&2
            ;;
        esac
    done <"$here/$lock.lock" >"$new"
    if ! cmp -s "$new" "$here/$lock.lock"; then
        # An index may promise a file that the archive does not have.
        sh "$here/fetch.sh" "$new" "$cache/dl" >/dev/null || {
            echo "dair: $here/$lock.lock is left as it was" >&2
            exit 1
        }
        cp "$new" "$here/$lock.lock"
        changed="$changed $lock.lock"
    fi
done
if [ -n "$changed" ]; then
    echo "dair: rewrote$changed in image/toolchain; 'make test', then commit"
else
    echo "dair: every pin is the newest of its suite"
fi
