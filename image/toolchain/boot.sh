#!/bin/sh
# boot.sh OUT <LIST - what boots the program under QEMU, for each machine ARCH/:
#   vmlinuz   Debian's kernel for virtual machines
#   busybox   static; the shell of the init script
#   modules/  drivers of QEMU's virtio devices, and `order`: how to load them
set -eu
out=$1
list=$(cat)
file() { echo "$list" | sed -n "s|^$1 ||p"; }

# Each after those that it needs; modules.dep would be made by depmod, which not every machine has.
drivers='virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net'

for arch in x86_64 aarch64; do
    case $arch in x86_64) deb=amd64 ;; *) deb=arm64 ;; esac
    to=$out/$arch tmp=$out/tmp-$arch kernel=$(file "linux-image-@-cloud-$deb:$deb")
    mkdir -p "$to/modules" "$tmp"
    dpkg-deb --fsys-tarfile "$kernel" | tar -x -C "$tmp" --wildcards './boot/vmlinuz-*' '*/drivers/virtio/*.ko' \
        '*/virtio_blk.ko' '*/failover.ko' '*/net_failover.ko' '*/virtio_net.ko'
    mv "$tmp"/boot/vmlinuz-* "$to/vmlinuz"
    for d in $drivers; do
        mv "$(find "$tmp" -name "$d.ko")" "$to/modules/"
        echo "$d.ko" >>"$to/modules/order"
    done
    dpkg-deb --fsys-tarfile "$(file "busybox-static:$deb")" | tar -x -C "$tmp" --wildcards '*/bin/busybox'
    mv "$(find "$tmp" -name busybox -type f)" "$to/busybox"
    rm -rf "$tmp"
    rm -f "$kernel" # of no further use
done
