"""A guest that uses one virtio device by itself, has its driver taken out and put in again, and powers off.

Nobody types: what it is to do stands in its kernel's command line. So the command that starts it is all that a judge of
its driver needs.
"""

import struct

TYPES = ("balloon", "block", "entropy")
"""The devices that a guest knows how to use."""


def arguments(kind, rounds, passes):
    """What the kernel's command line says: how often from probe to removal, and how many uses each time."""
    return [f"vdev.type={kind}", f"vdev.rounds={rounds}", f"vdev.passes={passes}"]


def exercised(kernel):
    """``kernel`` with an initramfs whose init obeys :func:`arguments`."""
    return kernel.with_init("exercise", INIT, {"zero-out": ZERO_OUT})


# Busybox has no tool that has a disk write zeros by itself: open(argv[1], O_RDWR), ioctl(BLKZEROOUT, {4 MiB, 1 MiB}).
_CODE = bytes.fromhex(
    "488b7c2410 be02000000 b802000000 0f05"  # rdi = argv[1], rsi = O_RDWR; open
    "89c7 be7f120000 488d1511000000 b810000000 0f05"  # rdi = its descriptor, rsi = BLKZEROOUT, rdx = the range; ioctl
    "31ff b83c000000 0f05"  # exit(0)
)
_BASE = 0x400000
_HEADERS_SIZE = 64 + 56
_IMAGE = _CODE + bytes(-len(_CODE) % 8) + struct.pack("<QQ", 4 << 20, 1 << 20)
ZERO_OUT = (
    struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, _BASE + _HEADERS_SIZE, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, _HEADERS_SIZE + len(_IMAGE), _HEADERS_SIZE + len(_IMAGE), 4096)
    + _IMAGE
)

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo 1 > /proc/sys/kernel/printk
rounds=1 passes=1
for word in $(cat /proc/cmdline); do
    case $word in
    vdev.type=*) type=${word#*=} ;;
    vdev.rounds=*) rounds=${word#*=} ;;
    vdev.passes=*) passes=${word#*=} ;;
    vdev.talks) echo 8 > /proc/sys/kernel/printk ;;
    esac
done
case $type in
    balloon) file=virtio_balloon.ko ;;
    block) file=virtio_blk.ko ;;
    entropy) file=virtio-rng.ko ;;
esac
module=$(echo ${file%.ko} | tr - _)

# Memory is taken and let go of, so that there are free pages to hint, to report and to lose to the balloon.
use_balloon() {
    dd if=/dev/zero of=/taken bs=1M count=$((16 + $1 % 3 * 16)) 2>/dev/null
    sleep 1
    rm -f /taken
    sleep 1
}

# Large and small, in and out of order, with and without the page cache; what the driver refuses is no failure.
use_block() {
    for disk in /dev/vd?; do
        name=${disk#/dev/}
        cat /sys/block/$name/serial /sys/block/$name/size
        blkdiscard -o 1048576 -l 65536 $disk
        blkdiscard -s -o 2097152 -l 65536 $disk
        test $(cat /sys/block/$name/queue/write_zeroes_max_bytes) = 0 || zero-out $disk
        dd if=$disk of=/dev/null bs=1M count=4 iflag=direct
        dd if=$disk of=/dev/null bs=512 count=3 skip=$((7 * $1)) iflag=direct
        dd if=$disk of=/kept bs=4k count=16 skip=$1
        echo 3 > /proc/sys/vm/drop_caches
        dd if=$disk of=/dev/null bs=64k count=32
        dd if=/kept of=$disk bs=4k seek=$1 conv=notrunc,fsync
        dd if=/dev/zero of=$disk bs=1M count=2 oflag=direct conv=notrunc,fsync &
        dd if=/dev/zero of=$disk bs=512 count=5 seek=$((5000 + $1)) oflag=direct conv=notrunc &
        dd if=$disk of=/dev/null bs=128k count=16 skip=3 iflag=direct &
        wait
        echo "write through" > /sys/block/$name/cache_type
        dd if=/kept of=$disk bs=4k seek=$1 conv=notrunc,fsync
        echo "write back" > /sys/block/$name/cache_type
        dd if=/kept of=$disk bs=4k seek=$1 conv=notrunc,fsync
        sync
    done
}

use_entropy() {
    echo virtio_rng.0 > /sys/class/misc/hw_random/rng_current
    dd if=/dev/hwrng of=/dev/null bs=1 count=3
    dd if=/dev/hwrng of=/dev/null bs=512 count=4
}

# The one way to take a driver from a device is to unbind it, the other to unload it.
round=1
insmod /modules/$file
while true; do
    pass=1
    while [ $pass -le $passes ]; do
        echo "vdev-guest round $round pass $pass"
        use_$type $((round + pass)) >/dev/null 2>&1
        pass=$((pass + 1))
    done
    [ $round -ge $rounds ] && break
    round=$((round + 1))
    if [ $((round % 2)) = 0 ]; then
        cd /sys/bus/virtio/drivers/$module
        for device in virtio*; do echo $device > unbind; echo $device > bind; done
        cd /
    else
        rmmod $module
        insmod /modules/$file
    fi
done
rmmod $module
echo "vdev-guest is done"
poweroff -f
"""
