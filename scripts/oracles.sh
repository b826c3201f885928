#!/bin/sh
# What tests compare answers with: DuckDB, pandas and Feast below target/, and Redis from the system's packages. What cannot be had is named,
# and the tests that need it say that they are skipped.
set -eu

cd "$(dirname "$0")/.."
# Packages into a folder of their own, below target/, of which `packages` in it tells.
bring() {
    dest="target/$1"
    shift
    [ "$(cat "$dest/packages" 2>/dev/null)" = "$*" ] && return
    rm -rf "$dest"
    # `--target` works without python3-venv, and nothing is installed.
    if python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --root-user-action=ignore --only-binary=:all: --target "$dest" "$@"; then
        echo "$*" >"$dest/packages"
    else
        # Half of it is none.
        rm -rf "$dest"
        echo "oracles: pip could not fetch $*; tests against them are skipped" >&2
    fi
}

bring oracles duckdb==2.0.1 pandas==3.1.1 pyarrow==26.0.1
bring feast feast==0.67.0

if ! command -v redis-server >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        { apt-get install -y -qq redis-server || { apt-get update -qq && apt-get install -y -qq redis-server; }; } >/dev/null 2>&1 || true
    fi
    command -v redis-server >/dev/null 2>&1 ||
        echo "oracles: there is no redis-server (Debian: apt-get install redis-server); tests against it are skipped" >&2
fi
