#!/bin/sh
# Fails when the run before it left files in the work tree that git does not know and does not ignore.
# Files that were there before the run count too: commit them or add them to .gitignore.
set -eu
cd "$(dirname "$0")/.."
git rev-parse --git-dir >/dev/null 2>&1 || exit 0
left=$(git ls-files --others --exclude-standard)
[ -z "$left" ] || {
    echo "not committed, or left behind by a test:"
    echo "$left"
    [ "${CI:-}" != true ]
}
