#!/bin/bash
# Runs every check and test, from a fresh clone on: ./test.sh
# Tests that boot Linux run on this machine's KVM if it can, else in the emulated KVM host (firmware/kvm-host).
# Logs are in artifacts/logs. The last line is "N passed, N failed"; skipped tests stand above it, each with its reason.
# With CI set, a test that boots Linux and was skipped is a failure. VMM_TESTS=full boots every kind of machine; see
# docs/testing.md.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
repo=$PWD
logs=$repo/artifacts/logs
vmm=$repo/artifacts/vmm/vmm
passed=0 failed=0 skipped=() repeated=() child= emulated= quiet=
mkdir -p "$logs"
exec 8> "$repo/artifacts/.test.lock"
flock -n 8 || { echo "test.sh: already running in this checkout" >&2; exit 1; }
trap 'trap "" INT TERM; kill "$child" 2> /dev/null; wait; echo "test.sh: interrupted" >&2; exit 130' INT TERM
# No build server may stay behind.
export MSBUILDDISABLENODEREUSE=1 UseSharedCompilation=false DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1
export VMM_ARTIFACTS=$repo/artifacts

finish() {
    local line
    if [ ${#repeated[@]} != 0 ]; then
        echo "repeated, because the emulated host is not always right:"
        for line in "${repeated[@]}"; do echo "  $line"; done
    fi
    if [ ${#skipped[@]} != 0 ]; then
        echo "skipped:"
        for line in "${skipped[@]}"; do echo "  $line"; done
    fi
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
    exit
}

# Runs a command in the background, so that a signal to this script ends it too.
bounded() { # SECONDS LOG COMMAND [ARG...]
    timeout -k 10 "$1" "${@:3}" > "$2" 2>&1 < /dev/null 8>&- &
    child=$!
    [ -z "$emulated" ] || watch_host "$child" "$2"
    wait "$child"
}

# Ends a run in an emulated host that goes nowhere any more: a processor of it may hang (docs/testing.md).
watch_host() { # PID LOG
    while kill -0 "$1" 2> /dev/null; do
        if [ "$(grep -c '^failed ' "$2")" -ge 5 ] || [ $(($(date +%s) - $(stat -c %Y "$2"))) -gt "$quiet" ]; then
            kill "$1"
            return
        fi
        sleep 2
    done
}

check() { # NAME SECONDS COMMAND [ARG...]: one check, its output in a log
    local name=$1 limit=$2 log=$logs/${1//[^a-z0-9]/-}.log start=$SECONDS status
    shift 2
    bounded "$limit" "$log" "$@"
    status=$?
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "ok    $name ($((SECONDS - start)) s)"
        return 0
    fi
    failed=$((failed + 1))
    echo "FAIL  $name (status $status after $((SECONDS - start)) s, log $log):"
    grep -E '(error|warning) [A-Z]+[0-9]+' "$log" | sort -u | head -n 20 | grep . || tail -n 20 "$log"
    return 1
}

run_tests() { # NAME SECONDS COMMAND [ARG...]: a run of the test program; sets status, good, bad, unrun and log
    local name=$1 limit=$2 start=$SECONDS
    log=$logs/${1//[^a-z0-9]/-}.log
    shift 2
    bounded "$limit" "$log" "$@"
    status=$?
    count() { sed -n "s/^  $1: \([0-9]*\)\$/\1/p" "$log" | tail -n 1; }
    good=$(count succeeded) bad=$(count failed) unrun=$(count skipped)
    good=${good:-0} bad=${bad:-0} unrun=${unrun:-0}
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then # crashed, ran past its time, or no test there
        bad=1
        echo "FAIL  $name ended with status $status:"
        tail -n 20 "$log"
    fi
    echo "tests $name: $good passed, $bad failed, $unrun skipped ($((SECONDS - start)) s, log $log)"
    awk '/^failed /{ lines = 12 } /^(passed|skipped) /{ lines = 0 } lines-- > 0' "$log"
}

tally() { # adds up what run_tests has set
    passed=$((passed + good)) failed=$((failed + bad))
    # "skipped NAME (time)", then the reason's first line.
    mapfile -t -O "${#skipped[@]}" skipped < <(sed -n '/^skipped /{s/^skipped \(.*\) ([^)]*)$/\1/;N;s/\n */: /;p}' "$log")
}

on_linux_host() { # NAME SECONDS FILTER: a run of tests that boot Linux
    run_tests "$1" $(($2 + 30)) scripts/on-kvm-host -t "$2" -e VMM_ARTIFACTS -e VMM_BINARY -e VMM_TESTS \
        -e DOTNET_TieredPGO=0 -e DOTNET_CLI_TELEMETRY_OPTOUT=1 -- artifacts/tests/Vmm.Tests \
        --filter "$3" --output Detailed --no-ansi --progress off --results-directory /tmp/results
}

# The same in emulated hosts, which now and then reset a guest or hang (docs/testing.md): what did not pass runs again, in a new
# host. What fails three times has failed, and what was repeated is listed.
on_emulated_hosts() { # SECONDS, for all of them; sets what run_tests sets
    local deadline=$((SECONDS + $1)) filter=TestCategory=Linux round rest name result reason
    local -A state=() count=([passed]=0 [failed]=0 [skipped]=0) # of each test: new, again, last, passed, failed or skipped
    while read -r name; do state[$name]=new; done < <(
        KVM_HOST=1 artifacts/tests/Vmm.Tests --filter "$filter" --list-tests --no-ansi | sed -n 's/^  \([^ :]*_.*\)$/\1/p')
    emulated=1
    for round in {1..12}; do
        on_linux_host "linux $round" $((deadline - SECONDS)) "$filter"
        while read -r result name; do
            reason=$(grep -F -A 1 "$result $name (" "$log" | sed -n '2s/^ *//p')
            case ${state[$name]-}/$result in
                new/failed) state[$name]=again repeated+=("$name: $reason") ;;
                again/failed) state[$name]=last repeated+=("$name, once more: $reason") ;;
                new/* | again/* | last/*)
                    state[$name]=$result count[$result]=$((count[$result] + 1))
                    [ "$result" != skipped ] || skipped+=("$name: $reason")
                    ;;
            esac
        done < <(sed -n 's/^\(passed\|failed\|skipped\) \(.*\) ([0-9hms ]*)$/\1 \2/p' "$log")
        rest=()
        for name in "${!state[@]}"; do
            case ${state[$name]} in new | again | last) rest+=("$name") ;; esac
        done
        [ "$status" -lt 124 ] || repeated+=("${#rest[@]} tests, because the host ended with status $status")
        [ ${#rest[@]} != 0 ] && [ $SECONDS -lt $deadline ] || break
        filter=$(printf '%s\n' "${rest[@]}" | sed 's/(.*//; s/^/FullyQualifiedName~/' | sort -u | paste -s -d '|')
    done
    emulated=
    for name in "${rest[@]}"; do echo "FAIL  $name: it did not end in any of $round hosts"; done
    good=${count[passed]} bad=$((count[failed] + ${#rest[@]})) unrun=${count[skipped]}
    [ ${#state[@]} != 0 ] || bad=1
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

export repo vmm logs
export -f publish one_line_error same_answer guest_status
in_bash() { check "$1" "$2" bash -c '"$@"' bash "${@:3}"; }

scripts/setup test || finish
check "format" 300 dotnet format Vmm.sln --verify-no-changes
check "build" 300 dotnet build Vmm.sln -c Release || finish
in_bash "publish" 600 publish || finish
check "vmm help" 30 "$vmm" --help
in_bash "vmm with a missing kernel" 30 one_line_error 1 "$vmm" run --kernel /nonexistent/vmlinuz
in_bash "vmm with a wrong option" 30 one_line_error 2 "$vmm" run --nonsense
in_bash "vmm check" 30 same_answer
check "test guests" 300 bash -c 'for what in cloud generic tools debian; do firmware/guest/build $what || exit; done'
export VMM_BINARY=$vmm
run_tests "unit" 1500 dotnet Vmm.Tests/bin/Release/net10.0/Vmm.Tests.dll --filter 'TestCategory!=Linux' \
    --output Detailed --no-ansi --progress off --results-directory "$logs/unit"
tally

scripts/can-run-linux || check "vdpa simulator" 300 firmware/kvm-host/build-vdpa
release=$(cat artifacts/kernels/cloud/release)
in_bash "demo uname" 180 guest_status 0 "$release" uname -r
in_bash "demo status" 180 guest_status 3 "it's \"quoted\"" sh -c 'echo "$1"; exit 3' sh "it's \"quoted\""
# Compiled ahead of time, because the emulated host has no time for the JIT.
check "publish tests" 300 dotnet publish Vmm.Tests -c Release -r linux-x64 --no-self-contained \
    -p:PublishReadyToRun=true -p:ValidateExecutableReferencesMatchSelfContained=false -o artifacts/tests || finish
seconds=4400 quiet=200
[ "${VMM_TESTS-}" != full ] || seconds=5400 quiet=1500
if scripts/can-run-linux; then
    on_linux_host "linux" "$seconds" TestCategory=Linux
    tally
else
    on_emulated_hosts "$seconds"
    passed=$((passed + good)) failed=$((failed + bad))
fi
if [ -n "${CI-}" ] && [ "$unrun" != 0 ]; then
    failed=$((failed + unrun))
    echo "FAIL  $unrun tests that boot Linux did not run"
fi
finish
