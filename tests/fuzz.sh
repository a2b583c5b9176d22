#!/bin/sh
# fuzz.sh PROGRAM CORPUS SECONDS - one fuzzer. What it finds beyond CORPUS (in the tree, read only; words
# to try in CORPUS.dict) is kept under build/fuzz; a crash stays there too, and is named.
set -eu
prog=$1 corpus=$2 time=$3
name=${prog##*/fuzz_}
mkdir -p "build/fuzz/corpus/$name" "build/fuzz/crash"
[ ! -d "$corpus" ] || set -- "$corpus"
[ -d "$corpus" ] || set --
[ ! -f "$corpus.dict" ] || set -- "-dict=$corpus.dict" "$@"
log=build/fuzz/$name.log
if "$prog" -max_total_time="$time" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/crash/$name-" "build/fuzz/corpus/$name" "$@" >"$log" 2>&1; then
    echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $time s, none fails"
else
    tail -n 40 "$log" >&2
    echo "fuzz $name: FAILED, see $log and build/fuzz/crash" >&2
    exit 1
fi
