#!/usr/bin/env bash
# Makes the virtual environment $2 with the interpreter $1 and installs the pinned packages.
set -euo pipefail
python=$1
venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Tidemark needs Python 3.11 or later, $python is $("$python" -V)" >&2
    exit 1
}
rm -rf "$venv"
if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    # Debian keeps ensurepip in a package of its own.
    rm -rf "$venv"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup: '$python -m venv' does not work here: install python3-venv" >&2
        exit 1
    fi
    echo "setup: installing python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq install --yes --no-install-recommends python3-venv >/dev/null 2>&1 || {
        apt-get -qq update
        apt-get -qq install --yes --no-install-recommends python3-venv >/dev/null
    }
    "$python" -m venv "$venv"
fi
echo "setup: installing the pinned Python packages into $venv"
"$venv/bin/pip" install -qq --constraint requirements.lock --editable '.[dev]'
"$venv/bin/pip" check >/dev/null
