#!/usr/bin/env bash
# Runs everything that has to hold, each step even when one before it failed, and counts at the end.
#   scripts/test.sh            as `make test`
#   CI=true                    a tool that cannot be installed, or a test that is left out, is a failure
#   ATTESTORE_VECTORS=DIR      where the test vectors of the real systems are
#   ATTESTORE_LONG=1           the long crash and property runs too, and the fuzz targets (`make test-long`)
#   ATTESTORE_FUZZ_SECONDS=60  how long each fuzz target runs
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
log=$logs/all
: >"$log"
passed=0 failed=0
failures=()

# Runs one step, shows what it prints, and counts it as one check.
step() {
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    if "$@" 2>&1 | tee "$logs/step"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failures+=("$name")
    fi
    cat "$logs/step" >>"$log"
}

# Adds up the `test result:` lines of one `cargo test`: a test binary's tests are the checks, not its run.
tests() {
    local name=$1 status ok=0 bad=0 counts
    shift
    printf '\n== %s\n' "$name"
    # --show-output, so that a passing test's `left out:` line is seen and counted.
    "$@" -- --show-output 2>&1 | tee "$logs/step" | grep -vE '^(test .* ok|successes:|---- .* stdout ----|)$' |
        grep -vE '^ +[a-z_:0-9]+$'
    status=${PIPESTATUS[0]}
    counts=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' "$logs/step")
    while read -r ok_here bad_here _; do
        ok=$((ok + ok_here)) bad=$((bad + bad_here))
    done <<<"${counts:-0 0 0}"
    passed=$((passed + ok)) failed=$((failed + bad))
    if [ "$status" -ne 0 ]; then
        # Nothing counted as failed although the run did: it did not build, or a test binary died.
        [ "$bad" -gt 0 ] || failed=$((failed + 1))
        failures+=("$name")
    fi
    cat "$logs/step" >>"$log"
}

if [ "${CI:-}" = true ]; then
    step "stock tools" scripts/install-tools.sh
else
    scripts/install-tools.sh || echo "tests that need what is missing are left out, and counted"
fi
step "scripts" scripts/lint-scripts.sh
step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" step "documentation" cargo doc --workspace --no-deps --locked
tests "tests" cargo test --workspace --no-fail-fast --locked
step "binaries" cargo build --workspace --bins --locked
step "docs/cli.md" scripts/cli-doc.sh --check
for page in README.md docs/*.md docs/*/*.md; do
    grep -q '^```sh' "$page" || continue
    step "commands of $page" scripts/run-doc.sh "$page"
done
step "demo" env ATTESTORE_BIN="$PWD/target/debug" DEMO_RECEIPTS=20000 examples/aegisagent/demo.sh
[ -z "${ATTESTORE_LONG:-}" ] || step "fuzz targets" scripts/fuzz.sh
step "clean work tree" scripts/clean-tree.sh

left_out=$(grep -hoE 'left out: .*' "$log" | sort -u)
ignored=$(sed -nE 's/^test result: .* ([0-9]+) ignored;.*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
skipped=$ignored
if [ -n "$left_out" ]; then
    skipped=$((skipped + $(wc -l <<<"$left_out")))
    printf '\n%s\n' "$left_out"
fi
if [ "${CI:-}" = true ] && [ "$skipped" -gt 0 ]; then
    failed=$((failed + 1))
    failures+=("$skipped left out, and CI=true allows none")
fi
if [ "${#failures[@]}" -gt 0 ]; then
    printf '\nfailed: %s' "${failures[@]}"
    printf '\n'
fi
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
