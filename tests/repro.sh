#!/bin/sh
# repro.sh - TAP: two clones, in folders and with cache paths of different names, in different time
# zones, give the same bytes. Takes the working tree as it is, so that it can run before a commit.
root=$(CDPATH='' cd -- "$(dirname "$0")/.." && pwd -P)
git -C "$root" rev-parse -q --verify HEAD >/dev/null 2>&1 || {
    echo "1..0 # SKIP not a git checkout with a commit"
    exit
}
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

clone() { # clone FOLDER TIMEZONE: its sums
    git clone -q -n "$root" "$1" || exit 2
    (cd "$root" && git ls-files -z -co --exclude-standard | xargs -0 cp -a --parents -t "$1" 2>/dev/null)
    ln -s "${XDG_CACHE_HOME:-$HOME/.cache}" "$1-cache"
    # Not a child of the make that may have called us.
    (cd "$1" && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u SOURCE_DATE_EPOCH TZ="$2" XDG_CACHE_HOME="$1-cache" \
        nice make all) >"$1.log" 2>&1 || {
        echo "Bail out! the clone does not build"
        tail -n 20 "$1.log" | sed 's/^/# /'
        exit 1
    }
    (cd "$1" && sha256sum build/*/dair build/*/dair.debug)
}
a=$(clone "$tmp/one" UTC) || { echo "$a"; exit 1; }
b=$(clone "$tmp/a-longer-name/two" Asia/Tokyo) || { echo "$b"; exit 1; }
n=0
for f in $(echo "$a" | sed 's/.* //'); do
    n=$((n + 1))
    if [ "$(echo "$a" | grep " $f\$")" = "$(echo "$b" | grep " $f\$")" ]; then
        echo "ok $n - $f"
    else
        echo "not ok $n - $f differs"
    fi
done
echo "1..$n"
