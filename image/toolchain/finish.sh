#!/bin/sh
# finish.sh TOOL-PREFIX ELF OUT strip|keep [MODEL] - from a linked program to the one that is shipped:
# symbols go to OUT.debug, MODEL into the section .dair.demo, which no loader maps and which begins
# on a multiple of 4096 in the file, so that it can be read with O_DIRECT.
set -eu
t=$1 elf=$2 out=$3 new=$3.new model=${5:-}
if [ "$4" = strip ]; then
    "${t}objcopy" --only-keep-debug "$elf" "$out.debug"
    "${t}strip" -o "$new" "$elf"
    "${t}objcopy" --add-gnu-debuglink="$out.debug" "$new"
else
    cp "$elf" "$new"
fi
if [ -n "$model" ]; then
    "${t}objcopy" --add-section .dair.demo="$model" "$new"
    # Only a section that exists can be aligned: a second pass.
    "${t}objcopy" --set-section-alignment .dair.demo=4096 "$new"
    at=$("${t}readelf" -SW "$new" | sed -n 's/.* \.dair\.demo  *[A-Z]* *[0-9a-f]* \([0-9a-f]*\) .*/\1/p')
    [ "${at%000}" != "$at" ] || {
        echo "$out: .dair.demo lies at 0x$at, not on a page" >&2
        exit 1
    }
fi
mv "$new" "$out"
