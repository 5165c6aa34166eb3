#!/bin/bash
# A command in a Linux guest, or a shell, from a fresh clone on:
#   ./demo.sh [OPTION...] [-- COMMAND [ARG...]]
# This is vmm exec with a kernel of Debian's that is unpacked here. Ctrl-] three times leaves the guest.
# For example: ./demo.sh    ./demo.sh -- uname -a    ./demo.sh --memory 1G --cpus 4 -- free -m
set -euo pipefail
repo=$(cd "$(dirname "$0")" && pwd)
kernel=$repo/artifacts/kernels/cloud

"$repo/scripts/setup" demo
"$repo/scripts/publish-vmm"
"$repo/scripts/can-run-linux" || echo "no hardware virtualisation here: starting the emulated KVM host, then the guest" >&2
exec "$repo/scripts/on-kvm-host" "$repo/artifacts/vmm/vmm" exec --kernel "$kernel/vmlinuz" --modules "$kernel/root" "$@"
