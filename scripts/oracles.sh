#!/bin/sh
# What tests compare answers with and talk to: DuckDB and pandas below target/, Redis and NATS from the system's packages. What
# cannot be had is named, and the tests that need it say that they are skipped.
set -eu

cd "$(dirname "$0")/.."
DEST=target/oracles
PACKAGES="duckdb==2.0.1 pandas==3.1.1 pyarrow==26.0.1"

if [ "$(cat "$DEST/packages" 2>/dev/null)" != "$PACKAGES" ]; then
    rm -rf "$DEST"
    # `--target` works without python3-venv, and nothing is installed.
    # shellcheck disable=SC2086
    if python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --root-user-action=ignore --only-binary=:all: --target "$DEST" $PACKAGES; then
        echo "$PACKAGES" >"$DEST/packages"
    else
        echo "oracles: pip could not fetch $PACKAGES; tests against them are skipped" >&2
    fi
fi

# A server from the system's packages, where they can be installed.
server() {
    command -v "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        { apt-get install -y -qq "$1" || { apt-get update -qq && apt-get install -y -qq "$1"; }; } >/dev/null 2>&1 || true
    fi
    command -v "$1" >/dev/null 2>&1 ||
        echo "oracles: there is no $1 (Debian: apt-get install $1); tests against it are skipped" >&2
}
server redis-server
server nats-server
