#!/bin/sh
# Runs shellcheck over every script that git knows.
set -eu
cd "$(dirname "$0")/.."
if ! command -v shellcheck >/dev/null 2>&1; then
    echo "left out: shell scripts (shellcheck is not installed; scripts/install-tools.sh installs it)"
    [ "${CI:-}" != true ]
    exit
fi
{ git ls-files '*.sh'; echo .ci/run; } | xargs shellcheck
