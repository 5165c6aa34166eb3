#!/bin/bash
# Runs all checks and tests but the long ones, from a fresh clone on: ./test.sh
# VMM_TESTS=full ./test.sh runs the long ones, too, and boots every kind of machine; see docs/testing.md.
# Tests that boot Linux run on this machine's KVM if it can, else in emulated KVM hosts (firmware/kvm-host).
# Logs are in artifacts/logs. The last line is "N passed, N failed"; skipped tests stand above it, each with its reason.
# With CI set, a test that boots Linux and was skipped is a failure.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
repo=$PWD
logs=$repo/artifacts/logs
vmm=$repo/artifacts/vmm/vmm
passed=0 failed=0 skipped=() unrun_linux=0
mkdir -p "$logs"
exec 8> "$repo/artifacts/.test.lock"
flock -n 8 || { echo "test.sh: already running in this checkout" >&2; exit 1; }
trap 'trap "" INT TERM; kill $(jobs -rp) 2> /dev/null; wait; echo "test.sh: interrupted" >&2; exit 130' INT TERM
# No build server may stay behind.
export MSBUILDDISABLENODEREUSE=1 UseSharedCompilation=false DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1
export VMM_ARTIFACTS=$repo/artifacts

finish() {
    local line
    kill $(jobs -rp) 2> /dev/null
    wait
    if [ ${#skipped[@]} != 0 ]; then
        echo "skipped:"
        for line in "${skipped[@]}"; do echo "  $line"; done
    fi
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
    exit
}

log_of() { echo "$logs/${1//[^a-z0-9]/-}.log"; }

# Runs a command in the background, so that a signal to this script ends it too; sets child.
start() { # NAME SECONDS COMMAND [ARG...]
    timeout -k 10 "$2" "${@:3}" > "$(log_of "$1")" 2>&1 < /dev/null 8>&- &
    child=$!
}

check() { # NAME SECONDS COMMAND [ARG...]: one check, its output in a log
    local began=$SECONDS
    start "$@"
    end_check "$1" "$child" "$began"
}

# Waits for a check that start has begun, and says how it ended. One that runs beside others has no time of its own.
end_check() { # NAME CHILD [BEGAN]
    local name=$1 log status time
    log=$(log_of "$name")
    wait "$2"
    status=$?
    time="beside others"
    [ -z "${3-}" ] || time="$((SECONDS - $3)) s"
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "ok    $name ($time)"
        return 0
    fi
    failed=$((failed + 1))
    echo "FAIL  $name (status $status, $time, log $log):"
    grep -E '(error|warning) [A-Z]+[0-9]+' "$log" | sort -u | head -n 20 | grep . || tail -n 20 "$log"
    return 1
}

# Waits for a run of the test program that start has begun, says how it ended, and adds up its results. Sets unrun.
end_tests() { # NAME CHILD
    local name=$1 log good bad status
    log=$(log_of "$name")
    wait "$2"
    status=$?
    count() { sed -n "s/^  $1: \([0-9]*\)\$/\1/p" "$log" | tail -n 1; }
    good=$(count succeeded) bad=$(count failed) unrun=$(count skipped)
    good=${good:-0} bad=${bad:-0} unrun=${unrun:-0}
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then # crashed, ran past its time, or no test there
        bad=1
        echo "FAIL  $name ended with status $status:"
        tail -n 20 "$log"
    fi
    echo "tests $name: $good passed, $bad failed, $unrun skipped ($SECONDS s since the start, log $log)"
    awk '/^failed /{ lines = 12 } /^(passed|skipped) /{ lines = 0 } lines-- > 0' "$log"
    passed=$((passed + good)) failed=$((failed + bad))
    # "skipped NAME (time)", then the reason's first line.
    mapfile -t -O "${#skipped[@]}" skipped < <(sed -n '/^skipped /{s/^skipped \(.*\) ([^)]*)$/\1/;N;s/\n */: /;p}' "$log")
}

start_linux_tests() { # NAME FILTER [OPTION...]: where KVM runs Linux
    start "$1" $((linux_seconds + 30)) nice -n 15 scripts/on-kvm-host "${@:3}" -t "$linux_seconds" -e VMM_ARTIFACTS -e VMM_BINARY -e VMM_TESTS \
        -e DOTNET_TieredPGO=0 -e DOTNET_CLI_TELEMETRY_OPTOUT=1 -- artifacts/tests/Vmm.Tests \
        --filter "$2" --output Detailed --no-ansi --progress off --results-directory /tmp/results
}

publish() {
    rm -rf Vmm/obj/Release/*/linux-x64/native "$vmm" # an incremental publish would not repeat the warnings
    scripts/publish-vmm || return
    ! grep -E 'warning [A-Z]+[0-9]+' "$logs/publish.log" | grep -v IL2104
}

one_line_error() { # STATUS COMMAND [ARG...]: fails with that status and one line on stderr
    local expected=$1 errors status
    shift
    errors=$("$@" 2>&1 > /dev/null)
    status=$?
    echo "status $status, errors: $errors"
    [ "$status" = "$expected" ] && [ "$(printf '%s\n' "$errors" | wc -l)" = 1 ] && [ -n "$errors" ]
}

same_answer() { # vmm check must say what scripts/can-run-linux says
    local status expected=1
    "$vmm" check
    status=$?
    ! "$repo/scripts/can-run-linux" || expected=0
    echo "status $status, expected $expected"
    [ "$status" = "$expected" ]
}

guest_status() { # STATUS OUTPUT COMMAND [ARG...]: what demo.sh makes of a command in the guest
    local expected=$1 output status
    shift
    output=$("$repo/demo.sh" -- "${@:2}")
    status=$?
    echo "status $status, output: $output"
    [ "$status" = "$expected" ] && [ "$output" = "$1" ]
}

build_guests() { # GUEST...
    for guest in "$@"; do firmware/guest/build "$guest" || return; done
    firmware/payloads/build artifacts/payloads || return
    scripts/can-run-linux || firmware/kvm-host/build-vdpa
}

export repo vmm logs
export -f publish one_line_error same_answer guest_status build_guests
in_bash() { check "$1" "$2" bash -c '"$@"' bash "${@:3}"; }

scripts/setup test || finish
guests=(cloud generic tools debian inject)
if [ "${VMM_TESTS-}" = full ]; then
    scripts/setup full || finish
    guests+=(suite)
fi
start "test guests" 600 bash -c 'build_guests "$@"' bash "${guests[@]}"
guests_child=$child
check "build" 400 dotnet build Vmm.sln -c Release || finish
check "package" 120 bash -c 'rm -rf artifacts/package && dotnet pack Vmm.sln -c Release --no-build -o artifacts/package'
in_bash "publish" 600 publish || finish
export VMM_BINARY=$vmm
# Compiled ahead of time, because the emulated host has no time for the JIT.
check "publish tests" 300 dotnet publish Vmm.Tests -c Release -r linux-x64 --no-self-contained \
    -p:PublishReadyToRun=true -p:ValidateExecutableReferencesMatchSelfContained=false -o artifacts/tests || finish
end_check "test guests" "$guests_child"
in_bash "vmm help" 30 "$vmm" --help
in_bash "vmm with a missing kernel" 30 one_line_error 1 "$vmm" run --kernel /nonexistent/vmlinuz
in_bash "vmm with a wrong option" 30 one_line_error 2 "$vmm" run --nonsense
in_bash "vmm check" 30 same_answer
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    check "start" 300 scripts/check-start
else
    skipped+=("start: what a start costs: no /dev/kvm here that may be opened")
fi
release=$(cat artifacts/kernels/cloud/release)
start "demo uname" 180 bash -c '"$@"' bash guest_status 0 "$release" uname -r
demo_child=$child
in_bash "demo status" 180 guest_status 3 "it's \"quoted\"" sh -c 'echo "$1"; exit 3' sh "it's \"quoted\""
end_check "demo uname" "$demo_child"

# Beside the tests: neither waits for the other.
start "format" 900 dotnet format Vmm.sln --verify-no-changes
format_child=$child
unit_seconds=2400
[ "${VMM_TESTS-}" != full ] || unit_seconds=7200 # an hour of resets
linux_seconds=3000
short='&TestCategory!=Full'
[ "${VMM_TESTS-}" != full ] || linux_seconds=10800 short=
start "unit" "$unit_seconds" dotnet Vmm.Tests/bin/Release/net10.0/Vmm.Tests.dll --filter "TestCategory!=Linux$short" \
    --output Detailed --no-ansi --progress off --results-directory "$logs/unit"
unit=$child
if scripts/can-run-linux; then
    end_tests "unit" "$unit"
    start_linux_tests "linux" "TestCategory=Confinement|TestCategory=Linux$short"
    end_tests "linux" "$child"
    unrun_linux=$unrun
else
    # An emulated host has one processor: two of them have half of the tests each. The unit tests wait most of the time. They run meanwhile, and have
    # the processors as soon as they want them.
    start_linux_tests "linux devices" "TestCategory=Confinement|TestCategory=Linux&FullyQualifiedName~Linux.Devices$short"
    devices=$child
    start_linux_tests "linux machine" "TestCategory=Linux&FullyQualifiedName!~Linux.Devices$short"
    machine=$child
    end_tests "unit" "$unit"
    end_tests "linux machine" "$machine"
    unrun_linux=$unrun
    end_tests "linux devices" "$devices"
    unrun_linux=$((unrun_linux + unrun))
fi
end_check "format" "$format_child"
if [ -n "${CI-}" ] && [ "$unrun_linux" != 0 ]; then
    failed=$((failed + unrun_linux))
    echo "FAIL  $unrun_linux tests that boot Linux did not run"
fi
finish
