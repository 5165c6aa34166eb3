#!/bin/bash
# Measures, from a fresh clone on:
#   ./bench.sh boot [-n RUNS]    start, exits, memory and end of a guest, beside QEMU's microvm (5 to 10 minutes), and kvmtool with KVMTOOL=PATH
#   ./bench.sh net [-n RUNS]     packets: round trips, throughput, connections, exits, beside QEMU's microvm (5 minutes)
#   ./bench.sh vsock [-n RUNS]   the same over virtual sockets (3 minutes)
#   ./bench.sh blk [-n RUNS]     a disk of qemu-storage-daemon (vhost-user), beside QEMU's microvm (6 minutes)
#   ./bench.sh fs [-n RUNS]      a directory: our daemon and virtiofsd (vhost-user), under our VMM and QEMU's microvm (12 minutes)
#   ./bench.sh exec [-n RUNS]    a command in a guest of vmm exec, beside QEMU's microvm with virtiofsd and the same initramfs (5 minutes)
#   ./bench.sh control [-n RUNS] connecting to a vhost-user daemon, and messages to it: time and CPU time (1 minute)
#   ./bench.sh backend [-n RUNS] our back-ends on this machine, blk beside qemu-storage-daemon and fs beside virtiofsd: requests a second, CPU time (12 minutes)
#   ./bench.sh scale [-l] [-u]   1 to 64 guests at once, 1 to 16 devices and vCPUs: memory beside the guest's, and QEMU's microvm (-l: 2 minutes)
#   ./bench.sh compare OLD NEW   two results, which are directories in artifacts/bench, or copies of them: says what got worse
# boot, net, vsock, blk, fs and exec take -w: the emulated host copies and clears memory by words, and not byte by byte.
# Tables go to stdout, raw results to artifacts/bench. What the figures mean is in docs/measurements.md.
set -euo pipefail
repo=$(cd "$(dirname "$0")" && pwd)

case ${1:-} in
    boot)
        shift
        exec "$repo/scripts/bench-boot" "$@"
        ;;
    compare)
        shift
        exec "$repo/scripts/bench-compare" "$@"
        ;;
    exec)
        shift
        exec "$repo/scripts/bench-exec" "$@"
        ;;
    scale)
        shift
        exec "$repo/scripts/bench-scale" "$@"
        ;;
    backend)
        shift
        exec "$repo/scripts/bench-backend" "$@"
        ;;
    control)
        shift
        exec "$repo/scripts/bench-control" "$@"
        ;;
    blk | fs) exec "$repo/scripts/bench-storage" "$@" ;;
    net | vsock) exec "$repo/scripts/bench-data" "$@" ;;
    '') sed -n '2,/^set/{/^# /s/^# //p}' "$0" ;;
    *)
        echo "bench: no benchmark '$1'; ./bench.sh lists them" >&2
        exit 2
        ;;
esac
