#!/usr/bin/env bash
# Writes docs/project.schema.json, the JSON Schema of project files that editors complete and check with.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=docs/project.schema.json
# Written beside its place and renamed: a build that fails leaves the old one whole.
partial=$(mktemp "$TARGET.XXXXXX")
trap 'rm -f "$partial"' EXIT
cargo run --quiet --bin millstream -- schema >"$partial"
chmod 644 "$partial"
mv "$partial" "$TARGET"
echo "schema: $TARGET is written"
