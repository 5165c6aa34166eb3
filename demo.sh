#!/bin/bash
# Boots a Linux guest under the VMM, from a fresh clone on:
#   ./demo.sh [VMM-OPTION...] [-- COMMAND [ARG...]]
# A shell on this terminal, or the command's output and exit status. Ctrl-A x leaves the VMM.
# For example: ./demo.sh    ./demo.sh -- uname -a    ./demo.sh --memory 1G --cpus 4 -- free -m
set -euo pipefail
repo=$(cd "$(dirname "$0")" && pwd)

"$repo/scripts/setup" demo
"$repo/scripts/publish-vmm"
"$repo/firmware/guest/build" cloud
"$repo/scripts/can-run-linux" || echo "no hardware virtualisation here: starting the emulated KVM host, then the guest" >&2
exec "$repo/scripts/on-kvm-host" "$repo/firmware/guest/run" "$@"
