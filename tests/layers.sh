#!/bin/sh
# layers.sh [FOLDER] - the order of the house: layers.txt says who may include whom, and through
# which file a library is entered. Also: no path of one machine and no host to download from.
rules=$(dirname "$0")/layers.txt
cd "${1:-.}" || exit 2

includes() { # includes FILE OPEN CLOSE: the names it includes between these
    sed -n "s/^ *# *include *$2\([^$3]*\)$3.*/\1/p" "$1"
}

bad=$(
    find src kernels -name '*.[ch]' -o -name '*.inc' | sort | while read -r f; do
        layer=${f#src/}
        case $layer in */*) layer=${layer%%/*} ;; *) layer=main ;; esac
        grep -q "^$layer:" "$rules" || echo "$f: $layer is not a layer of $rules"
        may=" $layer $(sed -n "s/^$layer: *//p" "$rules") "
        includes "$f" '"' '"' | while read -r i; do
            case $i in
            */*) to=${i%%/*} ;;
            *) to=$layer; [ -e "${f%/*}/$i" ] || to=kernels ;; # kernels/ is on the include path
            esac
            case $may in *" $to "*) ;; *) echo "$f: includes $i, but $layer may not see $to" ;; esac
        done
        includes "$f" '<' '>' | while read -r i; do
            # A door is a header's, or that of all headers of a folder.
            doors=$(awk -v h="@$i:" -v d="@${i%%/*}/:" '$1 == h || $1 == d { $1 = ""; print }' "$rules")
            [ -n "$doors" ] || continue
            ok=
            for door in $doors; do
                case $f in "$door" | "${door%/}"/*) ok=1 ;; esac
            done
            [ -n "$ok" ] || echo "$f: includes <$i>, whose only door is $doors"
        done
    done
    find src kernels -name '*.[ch]' -o -name '*.inc' | sed 's|.*/||' | sort | uniq -d |
        sed 's/$/: two files of this name/'
    # What a clone elsewhere must not meet: folders of one machine, and hosts to fetch from.
    git ls-files -co --exclude-standard 2>/dev/null | grep -v -e '^LICENSE' -e '^build/' -e '^tests/corpus/' |
        while read -r f; do
            [ -f "$f" ] || continue
            # The brackets keep this line from finding itself.
            grep -InoE "(^|[[:space:]\"'=:(])/(wor[k]|hom[e]|roo[t]|User[s])/[A-Za-z0-9_.-]*" "$f" |
                sed "s|^|$f: a folder of one machine: |"
            case $f in Makefile | .ci/* | image/* | *.sh | *.pl | *.lock)
                grep -InoE 'https?://[A-Za-z0-9][A-Za-z0-9.-]*' "$f" |
                    grep -vE '//(127\.|localhost|10\.|192\.168\.|dair)' | sed "s|^|$f: a host: |" ;;
            esac
        done
)
[ -z "$bad" ] || {
    echo "$bad" | head -n 60 >&2
    exit 1
}
