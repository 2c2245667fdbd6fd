#!/usr/bin/env bash
# The whole story on one screen: a service with 100,000 receipts is backed up while it writes, proven, tampered with,
# refused and restored. Works in a temporary folder and removes it.
#   make demo
#   ATTESTORE_BIN=target/debug DEMO_RECEIPTS=20000 examples/aegisagent/demo.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
PATH=${ATTESTORE_BIN:-$root/target/release}:$PATH
receipts=${DEMO_RECEIPTS:-100000}
lines=${DEMO_LINES:-12}

for tool in attestore aegisagent-serve aegisagent-load aegisagent-traffic sqlite3 curl; do
    command -v "$tool" >/dev/null || {
        echo "demo: $tool is missing: \`make demo\` builds ours, scripts/install-tools.sh installs the rest" >&2
        exit 1
    }
done

work=$(mktemp -d)
service='' traffic=''
stop_all() {
    for pid in $traffic $service; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    traffic='' service=''
}
trap 'stop_all; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cd "$work"

number=0
heading() {
    number=$((number + 1))
    printf '\n── %d. %s\n' "$number" "$*"
}
say() { printf '   %s\n' "$*"; }

# Shows a command, runs it, and insists on its exit status.
expect() {
    local want=$1 got=0 start=$EPOCHREALTIME tenths
    shift
    printf '   $ %s\n' "$*"
    "$@" >.out 2>&1 || got=$?
    tenths=$(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 100000))
    # Long output is cut for the eye; the checks below read all of it.
    head -n "$lines" .out | cut -c 1-150 | sed 's/^/     /'
    [ "$(wc -l <.out)" -le "$lines" ] || printf '     … and %d more\n' $(($(wc -l <.out) - lines))
    if [ "$got" -ne "$want" ]; then
        echo "demo: expected exit status $want, got $got" >&2
        exit 1
    fi
    [ "$want" -eq 0 ] || say "→ exit status $got"
    [ "$tenths" -lt 5 ] || say "→ $((tenths / 10)).$((tenths % 10)) s"
}
run() { expect 0 "$@"; }
# Insists that the last output names something.
names() {
    grep -qF -- "$1" .out || {
        echo "demo: expected the output to name '$1'" >&2
        exit 1
    }
}

start_service() {
    aegisagent-serve --database live/aegis.db --backup-dir live/backups --listen 127.0.0.1:0 >.serve 2>&1 &
    service=$!
    for _ in $(seq 100); do
        url=$(sed -n 's/^listening on //p' .serve)
        [ -n "$url" ] && break
        kill -0 "$service" 2>/dev/null || { cat .serve >&2; exit 1; }
        sleep 0.1
    done
    [ -n "$url" ] || { echo "demo: the service does not listen" >&2; exit 1; }
}
stop_service() {
    if [ -n "$traffic" ]; then
        kill "$traffic" 2>/dev/null || true
        wait "$traffic" 2>/dev/null || true
    fi
    kill "$service"
    wait "$service"
    traffic='' service=''
}

heading "A service with $receipts receipts, and it keeps writing"
mkdir live elsewhere
run aegisagent-load --receipts "$receipts" live/aegis.db
start_service
say "the service listens on $url"
aegisagent-traffic --rate 100 "$url" >.traffic 2>&1 &
traffic=$!
run curl -sSf "$url/v1/receipts/chain-head?tenant_id=tenant_01"

heading "A signing key and a repository"
run attestore keygen --out elsewhere/backup.key
run attestore init repo
cp -r repo older

heading "A backup while receipts keep coming, the chains verified inside the same snapshot"
run attestore backup live/aegis.db --to repo --chain aegisagent --chain aegisagent-policy \
    --sign-with elsewhere/backup.key
kill -0 "$traffic" || { echo "demo: the traffic stopped:"; cat .traffic; exit 1; } >&2

heading "What is in it, and whether it holds"
run attestore list repo
run attestore show repo latest
run attestore verify repo latest --public-key elsewhere/backup.key.pub

heading "Where the chain and the repository stand today, kept elsewhere"
run attestore chain checkpoint live/aegis.db --format aegisagent
cp .out elsewhere/receipts.checkpoint
run attestore checkpoint repo
cp .out elsewhere/repo.checkpoint

heading "One flipped byte in a copy of the repository"
cp -r repo copy
object=$(find copy/backups -name '*.db.zst' | head -n 1)
middle=$(($(stat -c %s "$object") / 2))
byte=$(od -An -tu1 -j "$middle" -N 1 "$object")
# shellcheck disable=SC2059
printf "\\$(printf %o $((byte ^ 1)))" | dd of="$object" bs=1 seek="$middle" conv=notrunc status=none
say "byte $middle of ${object#copy/backups/*/}: one bit flipped"
expect 5 attestore verify copy latest --public-key elsewhere/backup.key.pub
names "$(basename "$object")"

heading "A backup that vanishes, and a repository that is set back to an older copy"
rm -rf copy
cp -r repo copy
rm -r copy/backups/*
say "copy: the folder of the backup is deleted; the repository's own log knows of it"
expect 1 attestore verify copy --all --public-key elsewhere/backup.key.pub
names backup-missing
say "older: the repository as it was before the backup; it is whole, only not today's"
run attestore verify older --all
expect 1 attestore verify older --all --checkpoint elsewhere/repo.checkpoint
names log-truncated

heading "The tail cut off a copy of the database: invisible to the chain, not to the earlier checkpoint"
run sqlite3 live/aegis.db "VACUUM INTO 'cut.db'"
run sqlite3 cut.db "DELETE FROM action_receipts WHERE rowid > $((receipts - 100))"
run attestore chain verify cut.db --format aegisagent
expect 1 attestore chain verify cut.db --format aegisagent --checkpoint elsewhere/receipts.checkpoint
names truncated

heading "One row of the live database edited behind the service's back"
victim=$((receipts / 3))
run sqlite3 -cmd ".timeout 5000" live/aegis.db "UPDATE action_receipts SET decision = 'allow', approver = 'mallory@example.com'
     WHERE rowid = $victim RETURNING id"
record=$(tail -n 1 .out)
expect 1 attestore chain verify live/aegis.db --format aegisagent
names "$record"

heading "The restore: refused while the service runs"
expect 3 attestore restore repo latest --to live/aegis.db --public-key elsewhere/backup.key.pub

heading "The service stopped; what a restore would do; then the restore"
stop_service
run attestore restore repo latest --to live/aegis.db --public-key elsewhere/backup.key.pub --plan
run attestore restore repo latest --to live/aegis.db --public-key elsewhere/backup.key.pub

heading "Proven, and the old file kept"
run attestore chain verify live/aegis.db --format aegisagent
run attestore chain verify live/aegis.db --format aegisagent-policy
run find live -maxdepth 1 -name 'aegis.db*'
names .bad-
start_service
run curl -sSf "$url/ready"
run aegisagent-traffic --count 10 "$url"
run attestore chain verify live/aegis.db --format aegisagent

heading "The same by the runbook: verify, stop, plan, restore, verify, start"
export STOP="kill $service; while kill -0 $service 2>/dev/null; do sleep 0.1; done"
export START="echo 'the service may start'"
export PUBLIC_KEY=elsewhere/backup.key.pub CHECKPOINT=elsewhere/repo.checkpoint
lines=100 run "$root/examples/aegisagent/runbook.sh" live/aegis.db repo latest
service=''
start_service
run curl -sSf "$url/ready"
stop_service
run attestore set-aside live/aegis.db

heading "The same backup without Attestore"
without=0
for tool in minisign zstd sha256sum; do
    command -v "$tool" >/dev/null || {
        say "skipped: $tool is not installed (scripts/install-tools.sh installs it)"
        without=1
    }
done
if [ "$without" -eq 0 ]; then
    backup=$(find repo/backups -mindepth 1 -maxdepth 1 | head -n 1)
    run minisign -Vm "$backup/manifest.json" -p elsewhere/backup.key.pub
    run sha256sum "$backup/database/aegis.db.zst"
    digest=$(cut -c 1-64 .out)
    run grep -o "\"stored_sha256\":\"$digest\"" "$backup/manifest.json"
    run zstd -q -d "$backup/database/aegis.db.zst" -o by-hand.db
    run sqlite3 by-hand.db "PRAGMA integrity_check" "SELECT count(*) || ' receipts' FROM action_receipts"
fi

printf '\nDone: backed up under writes, proven, tampered with, refused, restored.\n'
