#!/usr/bin/env bash
# Instructions per pass of cases of benches/instructions, counted by valgrind: the same on a busy machine, and good for ratios.
# Without names every case is counted.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 1; }
TIMES=200
bench=$(cargo bench --bench instructions --no-run 2>&1 | sed -n 's/.*(\(target[^)]*\)).*/\1/p')
cases=("$@")
[[ ${#cases[@]} -gt 0 ]] || mapfile -t cases < <("$bench")
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for case in "${cases[@]}"; do
    valgrind --tool=callgrind --collect-atstart=no --toggle-collect='instructions::counted*' \
        --callgrind-out-file="$out" "$bench" "$case" >/dev/null 2>&1
    total=$(sed -n 's/^\(summary\|totals\): //p' "$out" | head -1)
    printf '%-24s %12d\n' "$case" $((total / TIMES))
done
