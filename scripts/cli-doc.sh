#!/usr/bin/env bash
# Fills the second half of docs/cli.md with what `attestore … --help` prints, or with --check fails when it differs.
#   scripts/cli-doc.sh [--check]
set -euo pipefail
cd "$(dirname "$0")/.."
attestore=${ATTESTORE_BIN:-target/debug}/attestore
mark='<!-- Below: printed by scripts/cli-doc.sh from the program itself. -->'

# Names of the verbs under the words given.
verbs() { "$attestore" "$@" --help | sed -nE '/^Commands:/,/^$/s/^  ([a-z-]+) .*/\1/p' | grep -vx help || true; }

section() {
    # shellcheck disable=SC2016
    printf '\n### %s\n\n```text\n' "$*"
    "$attestore" "$@" --help | sed -E 's/[[:space:]]+$//'
    # shellcheck disable=SC2016
    printf '```\n'
}

made=$(mktemp)
trap 'rm -f "$made"' EXIT
{
    awk -v mark="$mark" '{ print } $0 == mark { exit }' docs/cli.md
    for verb in $(verbs); do
        below=$(verbs "$verb")
        if [ -z "$below" ]; then section "$verb"; fi
        for word in $below; do section "$verb" "$word"; done
    done
} >"$made"

if [ "${1:-}" = --check ]; then
    diff -u docs/cli.md "$made" || { echo "docs/cli.md is not what the program prints: run scripts/cli-doc.sh" >&2; exit 1; }
else
    cp "$made" docs/cli.md
fi
