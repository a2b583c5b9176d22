#!/bin/sh
# store_faults.t - TAP: disks that fail, under the real store. strace breaks its preads; squashfs
# refuses O_DIRECT; a group throttles. Its subject is tests/test_store with arguments.
cd "$(dirname "$0")/.." || exit 2
subject=${DAIR_BUILD:-build/$(uname -m)}/tests/test_store
n=0
ok() { # ok STATUS NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}
skip() {
    n=$((n + 1))
    echo "ok $n # SKIP $1"
}
[ -x "$subject" ] || { echo "1..0 # SKIP $subject is not built"; exit 0; }
tmp=$(mktemp -d) || exit 2
mounted=
trap '[ -z "$mounted" ] || umount "$tmp/mnt"; rm -rf "$tmp"' EXIT
file=$tmp/weights
head -c 1500001 /dev/urandom >"$file"
what=$(timeout 60 "$subject" sweep "$file" 3 0 2)
right=$(echo "$what" | sed -n 's/^sweep //p' | head -n 1)
[ "$(echo "$what" | grep -c "^sweep $right\$")" = 3 ] && [ -n "$right" ]; ok $? "three sweeps alike"
timeout 60 "$subject" sweep "$file" 3 700000 2 | grep -q "^sweep $right\$"; ok $? "and with half of it resident"

timeout 60 "$subject" demand "$file" 3 700000 2 >"$tmp/out"; [ "$(grep -c "^sweep $right\$" "$tmp/out")" = 3 ]; ok $? "and all of it on demand"

# broken HOW COMMAND...: its output, with the preads of $file broken so. The file is opened with one
# trial read (number 1) where it takes O_DIRECT.
broken() {
    how=$1
    shift
    timeout 60 strace -f -qq -o "$tmp/trace" -P "$file" -e trace=pread64 -e "inject=pread64:$how" "$@"
}
same_sweeps() { [ "$(grep -c "^sweep $right\$" "$tmp/out")" = "$1" ]; }

if broken error=EINTR:when=1 "$subject" sweep "$file" 1 0 1 >"$tmp/out" 2>&1 && grep -q INJECTED "$tmp/trace"; then
    broken error=EINTR:when=3..40 "$subject" sweep "$file" 2 0 2 >"$tmp/out"
    [ $? = 0 ] && same_sweeps 2; ok $? "EINTR is nothing"
    broken error=EIO:when=5..6 "$subject" sweep "$file" 2 0 1 >"$tmp/out"
    [ $? = 0 ] && same_sweeps 2; ok $? "two EIO in a row are tried again"
    broken error=EIO:when=5..7 "$subject" sweep "$file" 2 0 1 >"$tmp/out"
    [ $? = 1 ] && grep -q "^error: $file: reading at byte [0-9]*: I" "$tmp/out"; ok $? "three are not"
    broken error=EIO:when=3+ "$subject" sweep "$file" 2 700000 4 >"$tmp/out"
    [ $? = 1 ] && grep -q '^error: ' "$tmp/out"; ok $? "EIO while loading, four readers: an error, no hang"
    broken error=ENXIO:when=40+ "$subject" sweep "$file" 9 0 1 >"$tmp/out"
    [ $? = 1 ] && same_sweeps 1; ok $? "the disk is pulled out in the second sweep: $(tail -n 1 "$tmp/out" | sed 's|/.*/||')"
    broken retval=0:when=40+ "$subject" sweep "$file" 9 0 2 >"$tmp/out"
    [ $? = 1 ] && grep -q '^error: .*though the file has 1500001 bytes' "$tmp/out"; ok $? "nothing more comes"
    broken retval=100:when=40+ "$subject" sweep "$file" 9 0 2 >"$tmp/out"
    [ $? = 1 ] && grep -q '^error: .*though the file has 1500001 bytes' "$tmp/out"; ok $? "100 bytes again and again are not read for ever"
    broken error=EIO:when=30..31 "$subject" demand "$file" 3 400000 1 >"$tmp/out"
    [ $? = 0 ] && same_sweeps 3; ok $? "on demand: two EIO in a row are tried again"
    broken error=EIO:when=30+ "$subject" demand "$file" 9 400000 4 >"$tmp/out"
    [ $? = 1 ] && grep -q "^error: $file: reading at byte [0-9]*: I" "$tmp/out"; ok $? "on demand: three are not, four readers"
    broken retval=0:when=40+ "$subject" demand "$file" 9 400000 2 >"$tmp/out"
    [ $? = 1 ] && grep -q '^error: .*though the file has 1500001 bytes' "$tmp/out"; ok $? "on demand: nothing more comes"
    broken delay_enter=20000:when=3+ "$subject" sweep "$file" 2 0 2 >"$tmp/out"
    [ $? = 0 ] && same_sweeps 2; ok $? "a disk that takes 20 ms a read"
    for short in 512 1000 4096 524288 524289 1199999; do
        # The read after the trial and the one that is kept: 3 where the file is direct, else 2.
        grep -q '^direct' "$tmp/out"; when=$((3 - $?))
        broken "retval=$short:when=$when" "$subject" again "$file" $short >"$tmp/again"
        [ $? = 0 ] && [ "$(cat "$tmp/again")" = same ] && grep -q "= $short (INJECTED)" "$tmp/trace"
        ok $? "a read that is short after $short bytes"
    done
else
    skip "faults of system calls: strace is not here or may not trace"
fi

# squashfs refuses O_DIRECT when the file is opened.
mkdir "$tmp/mnt"
if ! command -v mksquashfs >/dev/null; then
    skip "squashfs: mksquashfs is not here"
elif ! mksquashfs "$file" "$tmp/image" -no-progress >/dev/null 2>&1; then
    skip "squashfs: mksquashfs does not work here"
elif ! mount -o loop,ro "$tmp/image" "$tmp/mnt" 2>/dev/null; then
    skip "squashfs: may not be mounted here"
else
    mounted=1
    timeout 60 "$subject" sweep "$tmp/mnt/weights" 2 300000 2 >"$tmp/out"
    [ $? = 0 ] && same_sweeps 2 && grep -q '^not direct' "$tmp/out"; ok $? "squashfs"
fi

# A limit on locked memory and no huge pages: what an ordinary user has.
(ulimit -l 64; timeout 60 "$subject" sweep "$file" 2 300000 2 >"$tmp/out"); [ $? = 0 ] && same_sweeps 2
ok $? "with little memory to lock"
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$tmp"; chmod 644 "$file"; cp "$subject" "$tmp/subject"
    timeout 60 setpriv --reuid 65534 --regid 65534 --clear-groups "$tmp/subject" sweep "$file" 2 300000 2 >"$tmp/out"
    [ $? = 0 ] && same_sweeps 2; ok $? "not as root"
else
    skip "not as root: setpriv is not here, or nobody is root"
fi
echo "1..$n"
