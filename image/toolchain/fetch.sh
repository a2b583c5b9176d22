#!/bin/sh
# fetch.sh LOCK DL - bring each thing a lock file names into DL, checked, stored under its sha256.
# Prints "name file" for each. fetch.sh --pool prints the archive's address only.
# The address comes from apt's own configuration, and so do proxies; DAIR_POOL overrides it with
# the folder above pool/ of any archive that has the files.
set -eu

fail() {
    echo "dair: $*" >&2
    exit 1
}

# Of apt's sources the plain Debian release: third parties, security and updates have other pools.
pool() {
    at=${DAIR_POOL:-$(apt-get indextargets --no-release-info --format \
        '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | awk '
        $2 == "main" && $1 ~ /^((old)*stable|testing|unstable|sid|bookworm|trixie|forky|duke)$/ {
            if ($3 ~ /\/debian\/?$/) { best = $3; exit }
            if (!other) other = $3
        }
        END { print best ? best : other }')}
    case $at in # cloud images name a file that lists mirrors, the first one first
    mirror+file:*) at=$(sed -n '/^[a-z]/{s/[[:space:]].*//;p;q;}' "${at#mirror+file:}") ;;
    esac
    [ -n "$at" ] || fail "apt's sources name no Debian archive; set DAIR_POOL to the folder above pool/ of one"
    echo "${at%/}"
}

[ "$1" != --pool ] || { pool; exit; }
lock=$1 dl=$2 base='' total=0 count=0 n=0
mkdir -p "$dl"

lines() { awk -v n="$1" '$1 == n { print $3, $4, $5 }' "$lock"; }

# A .cut is what tc.sh keeps of a large archive.
stored() {
    for f in "$dl/$1.cut" "$dl/$1"; do
        [ ! -f "$f" ] || { echo "$f"; return; }
    done
    return 1
}

# The first alternative that is here already, or nothing.
held() {
    lines "$1" | while read -r sum _; do
        if stored "$sum"; then break; fi
    done
}

# get SUM PATH: three tries, but one only where the archive answers and has no such file.
get() {
    url=$base/$(echo "$2" | sed 's/+/%2b/g; s/~/%7e/g; s/:/%3a/g')
    for pause in 1 3 0; do
        # As root, apt would turn into its own user, who may not write here.
        if why=$(/usr/lib/apt/apt-helper -qq -o APT::Sandbox::User=root download-file \
            "$url" "$dl/$1.part" "SHA256:$1" 2>&1 >/dev/null); then
            chmod 644 "$dl/$1.part"
            mv "$dl/$1.part" "$dl/$1"
            return
        fi
        rm -f "$dl/$1.part" "$dl/$1.part.FAILED"
        case $why in
        *404* | *410* | *"Not Found"* | *"File not found"* | *"Hash Sum"*) return 1 ;;
        esac
        sleep $pause
    done
    fail "cannot fetch $2 from $base: $(echo "$why" | sed -n 's/^E: //p' | head -n 1)"
}

names=$(awk '!/^#/ && NF && !seen[$1]++ { print $1 }' "$lock")
for name in $names; do
    [ -n "$(held "$name")" ] || {
        count=$((count + 1))
        total=$((total + $(lines "$name" | { read -r _ size _; echo "$size"; })))
    }
done
mb() { echo "$(($1 / 1000000)).$(($1 / 100000 % 10))"; }

if [ $count -gt 0 ]; then
    [ -x /usr/lib/apt/apt-helper ] || fail "fetching needs apt, which this system does not have"
    base=$(pool)
    echo "dair: fetching $count file(s), $(mb $total) MB, to keep in $dl (at 50 Mbit/s: $((total / 6250000 + 1)) s)" >&2
fi
got=0
for name in $names; do
    file=$(held "$name")
    if [ -z "$file" ]; then
        n=$((n + 1))
        while read -r sum size path; do
            echo "  [$n/$count] $(mb "$size") MB after $(mb $got) of $(mb $total)  ${path##*/}" >&2
            if get "$sum" "$path"; then
                file=$dl/$sum got=$((got + size))
                break
            fi
            gone=$path
            echo "  ${path##*/} is not in the archive any more" >&2
        done <<EOF
$(lines "$name")
EOF
        [ -n "$file" ] || fail "$lock: $base has no $gone as pinned;" \
            "run 'make repin' to take the newest of the same series, or set DAIR_POOL to an archive that keeps it"
    fi
    case $file in
    *.cut) ;;
    *) echo "${file##*/}  $file" | sha256sum -c --quiet - >&2 || {
        rm -f "$file"
        fail "$file was damaged and is deleted; run make again"
    } ;;
    esac
    echo "$name $file"
done
