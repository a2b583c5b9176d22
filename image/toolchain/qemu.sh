#!/bin/sh
# qemu.sh OUT <LIST - the one program that the ARM tests need out of a package of sixty.
set -eu
read -r _ deb
dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/qemu-aarch64-static >"$1/qemu-aarch64"
chmod 755 "$1/qemu-aarch64"
"$1/qemu-aarch64" --version >/dev/null
rm -f "$deb" # 60 MB, of no further use
