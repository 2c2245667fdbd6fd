#!/usr/bin/env bash
# Fuzzes every parser with libFuzzer, on the stable toolchain (fuzz/Cargo.toml says why that works).
#   scripts/fuzz.sh [TARGET...]        some targets; by default all
#   ATTESTORE_FUZZ_SECONDS=60          how long each target runs
#   ATTESTORE_FUZZ_KEEP=DIR            where corpora are kept from run to run; by default they are thrown away
# Seeds are made from tests/vectors when a target starts. An input that breaks something is kept as
# fuzz/artifacts/TARGET-…, its path is printed, and the exit status is 1; give it to the program again with
#   ATTESTORE_FUZZ_TARGET=TARGET fuzz/target/*/release/attestore-fuzz FILE
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${ATTESTORE_FUZZ_SECONDS:-60}
command -v c++ >/dev/null 2>&1 || {
    echo "left out: fuzzing (there is no C++ compiler; scripts/install-tools.sh installs one)"
    [ "${CI:-}" = true ] && exit 1
    exit 0
}

host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags reach what is fuzzed, and no build script or macro. Level 4 sees every edge and calls through
# pointers; the tables and compared values are what libFuzzer steers by.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# The versions that the program is built with; only libFuzzer's own are added.
cp Cargo.lock fuzz/Cargo.lock
cargo build --manifest-path fuzz/Cargo.toml --target-dir fuzz/target --release --target "$host"
program=$PWD/fuzz/target/$host/release/attestore-fuzz

if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <("$program"); fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p fuzz/artifacts

# Runs one target; its last lines are shown, all of them where it fails.
fuzz() {
    local target=$1 corpus=${ATTESTORE_FUZZ_KEEP:-$work}/$1
    mkdir -p "$corpus" "$work/tmp"
    if ATTESTORE_FUZZ_TARGET=$target ATTESTORE_FUZZ_SEEDS=$corpus TMPDIR=$work/tmp \
        "$program" "$corpus" -max_total_time="$seconds" -max_len=8192 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$target-" >"$work/$target.log" 2>&1; then
        local runs edges
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
        edges=$(sed -nE 's/^#[0-9]+.*DONE.* cov: ([0-9]+).*/\1/p' "$work/$target.log")
        echo "fuzzed $target: $runs inputs in $seconds s, $edges edges"
    else
        cat "$work/$target.log"
        echo "FOUND by $target: see fuzz/artifacts/$target-*"
        return 1
    fi
}
export -f fuzz
export program work seconds
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
rmdir --ignore-fail-on-non-empty fuzz/artifacts
