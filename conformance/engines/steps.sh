# shellcheck shell=bash
# Sourced by the scripts of this folder: `step NAME <<'S' … S` runs a piece of bash (-e, -u, pipefail) with a
# time limit and prints what came of it; a piece that calls `skip FACT` counts as skipped. `finish` prints the counts.
# What a failed step did is printed line by line (bash -x). SMOKE=1: only the steps begun with `smoke`;
# STEPS=REGEX: only those whose name matches.
engine=$(basename "$0")
passed=0 failed=0 skipped=0
steps_lib=$(readlink -f "${BASH_SOURCE[0]}")
here=$(dirname "$steps_lib")
export here
step_log=$(mktemp /var/tmp/step.XXXXXX)

# Inside of a step.
skip() { echo "needs $*" > "$STEP_SKIP"; exit 77; }
# eventually COMMAND...: until it succeeds, at most for a minute
eventually() {
	local end=$((SECONDS + 60))
	until "$@" 2>/dev/null; do [ $SECONDS -lt $end ] || { echo "never true: $*" >&2; return 1; }; sleep 0.3; done
}
is() { [ "$1" = "$2" ] || { printf 'want: %s\n got: %s\n' "$2" "$1" >&2; return 1; }; }
has() { case $1 in *"$2"*) ;; *) printf 'no "%s" in: %s\n' "$2" "$1" >&2; return 1 ;; esac; }
hasnt() { case $1 in *"$2"*) printf 'there is "%s" in: %s\n' "$2" "$1" >&2; return 1 ;; esac; }
# exits CODE COMMAND...: the exit status is that one; what it printed is in $out
exits() {
	local want=$1 got=0; shift
	out=$("$@" 2>&1) || got=$?
	[ "$got" = "$want" ] || { printf 'exit status %s, not %s: %s\n' "$got" "$want" "$out" >&2; return 1; }
}
# frozen PID 0|1: what the kernel says of the cgroup of a process, or of one above
frozen() {
	local at file
	at=$(sed -n 's/^0:://p' "/proc/$1/cgroup") file=/sys/fs/cgroup$at/cgroup.events
	if [ -e "$file" ]; then has "$(cat "$file")" "frozen $2"; return; fi
	at=$(sed -n 's/^[0-9]*:freezer://p' "/proc/$1/cgroup")
	is "$(cat "/sys/fs/cgroup/freezer$at/freezer.state")" "$([ "$2" = 1 ] && echo FROZEN || echo THAWED)"
}
export -f skip eventually is has hasnt exits frozen

smoke() { SMOKE='' step "$@"; }

step() {
	local name=$1 limit=${2:-400} code start=$SECONDS status=0
	code=$(cat)
	[ -z "${SMOKE:-}" ] || return 0
	[[ $name =~ ${STEPS:-} ]] || return 0
	export STEP_SKIP=$step_log.skip
	rm -f "$STEP_SKIP"
	timeout -k 10 "$limit" bash -euxo pipefail -c "${prelude:-:}
$code" > "$step_log" 2>&1 </dev/null || status=$?
	case $status in
	0) passed=$((passed + 1)); printf 'PASS %s: %s (%d s)\n' "$engine" "$name" $((SECONDS - start)) ;;
	77) skipped=$((skipped + 1)); printf 'SKIP %s: %s: %s\n' "$engine" "$name" "$(cat "$STEP_SKIP")" ;;
	*) failed=$((failed + 1)); printf 'FAIL %s: %s (%d s, status %d)\n' "$engine" "$name" $((SECONDS - start)) $status
		tail -n "${TAIL:-25}" "$step_log" | cut -c1-600 | sed 's/^/    /' ;;
	esac
}

finish() {
	rm -f "$step_log" "$step_log.skip"
	printf 'TABLE %s%s: %d passed, %d failed, %d skipped, %d s\n' "$engine" "${variant:+ ($variant)}" $passed $failed $skipped $SECONDS
	[ $failed -eq 0 ]
}
