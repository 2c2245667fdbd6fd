#!/usr/bin/env bash
# Runs the commands of a document, so that it cannot say what is not so.
#   scripts/run-doc.sh docs/restore-without-attestore.md
#
# Every ```sh block is run, in order, in one shell (set -eu) in an empty folder with `attestore` on the PATH.
# A hidden block of the form `<!-- run` … `-->` is run at its place too: what a page takes for granted
# (`$ATTESTORE_ROOT` is the work tree).
# A line `<!-- needs: minisign zstd -->` names tools; without one of them the page is left out, which CI does not allow.
# A ```console or ```text block is shown, not run. ATTESTORE_BIN says where the binaries are (target/debug).
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: scripts/run-doc.sh PAGE.md" >&2; exit 2; }
page=$(realpath "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
bin=${ATTESTORE_BIN:-$root/target/debug}

needs=$(sed -nE 's/^<!-- needs: (.*) -->$/\1/p' "$page")
for tool in $needs; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "left out: $1 ($tool is not installed; scripts/install-tools.sh installs it)"
        [ "${CI:-}" = true ] && exit 1
        exit 0
    fi
done

script=$(awk '
    /^```sh$/ && !hidden { code = 1; next }
    /^```/ && code       { code = 0; next }
    /^<!-- run$/         { hidden = 1; next }
    /^-->$/ && hidden    { hidden = 0; next }
    code || hidden       { print }
' "$page")
[ -n "$script" ] || { echo "$1 has no sh block" >&2; exit 2; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir home
if ATTESTORE_ROOT=$root HOME=$folder/home PATH=$bin:$PATH bash -eu -o pipefail -v -c "$script" >"$folder/.log" 2>&1; then
    echo "$1: $(grep -c . <<<"$script") lines of commands ran"
else
    status=$?
    cat "$folder/.log"
    echo "$1: the last command above exited with status $status" >&2
    exit 1
fi
