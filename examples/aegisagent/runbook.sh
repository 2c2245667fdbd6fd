#!/bin/sh
# The restore runbook: stop, check, plan, restore, verify, start. Every step that fails ends it, with the live
# database as it was before.
#
#   runbook.sh DATABASE REPOSITORY [BACKUP]          BACKUP is an id or `latest`
#
#   STOP, START    commands that stop and start the service (`systemctl stop aegis`); without them you are asked to
#   PUBLIC_KEY     the key that signed the backups; without it only integrity is checked, not who made it
#   CHECKPOINT     a repository checkpoint kept elsewhere: proves that no backup vanished since
#   IDENTITY       the age identity, for an encrypted backup
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
database=$1 repository=$2 backup=${3:-latest}

step() { printf '\n== %s\n' "$*"; }
by_hand() {
    printf '%s, then press Enter: ' "$1"
    read -r _
}

# Flags that several verbs share; built once, quoted as words.
set --
[ -z "${PUBLIC_KEY:-}" ] || set -- "$@" --public-key "$PUBLIC_KEY"
[ -z "${IDENTITY:-}" ] || set -- "$@" --identity "$IDENTITY"

step "1. The backup is whole and is ours"
attestore verify "$repository" "$backup" "$@" ${CHECKPOINT:+--checkpoint "$CHECKPOINT"}

step "2. Stop the service"
if [ -n "${STOP:-}" ]; then sh -c "$STOP"; else by_hand "Stop the service"; fi

step "3. What the restore would do"
attestore restore "$repository" "$backup" --to "$database" "$@" --plan

step "4. Restore"
attestore restore "$repository" "$backup" --to "$database" "$@"

step "5. The receipt chain and the policy log of the restored database"
attestore chain verify "$database" --format aegisagent
attestore chain verify "$database" --format aegisagent-policy

step "6. Start the service"
if [ -n "${START:-}" ]; then sh -c "$START"; else by_hand "Start the service"; fi

step "Done. The database from before is kept beside the new one:"
ls -l "$database".bad-* 2>/dev/null || echo "there was none"
