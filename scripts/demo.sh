#!/usr/bin/env bash
# Builds Millstream, serves the fraud example, sends it one request and keeps serving until Ctrl-C.
#
# DEMO_BIND  where to serve; 127.0.0.1:8080 unless it says otherwise
# DEMO_ONCE  1 stops after the answer, as happens when the output is no terminal
set -euo pipefail
cd "$(dirname "$0")/.."

BIND=${DEMO_BIND:-127.0.0.1:8080}
PROJECT=examples/fraud
GRAPH=fraud
URL=http://$BIND
ROUTE=$URL/v1/graphs/$GRAPH

fail() {
    echo "demo: $1" >&2
    exit 1
}

# Answers the body of a GET, or of a POST when a body is given.
if command -v curl >/dev/null 2>&1; then
    fetch() {
        curl --silent --show-error --fail-with-body --noproxy '*' --max-time 10 \
            ${2:+--header 'content-type: application/json' --data "$2"} "$1"
    }
elif command -v python3 >/dev/null 2>&1; then
    fetch() {
        python3 - "$@" <<'PYTHON'
import sys, urllib.error, urllib.request

url, body = sys.argv[1], sys.argv[2].encode() if len(sys.argv) > 2 else None
request = urllib.request.Request(url, body, {"content-type": "application/json"})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    print(opener.open(request, timeout=10).read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"{error}: {error.read().decode()}")
except OSError as error:
    sys.exit(str(error))
PYTHON
    }
else
    fail "curl or python3 is needed to send a request"
fi

pretty() {
    if command -v python3 >/dev/null 2>&1; then
        python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin), indent=2, ensure_ascii=False))'
    else
        cat
    fi
}

command -v cargo >/dev/null 2>&1 || fail "cargo is needed to build (https://rustup.rs)"
if (exec 3<>"/dev/tcp/${BIND%:*}/${BIND##*:}") 2>/dev/null; then
    fail "something else serves $BIND; choose another place: DEMO_BIND=127.0.0.1:8090 make demo"
fi

echo "demo: building (the first time takes some minutes)"
cargo build --release --bin millstream
BINARY=${CARGO_TARGET_DIR:-target}/release/millstream

"$BINARY" serve "$PROJECT" --bind "$BIND" --drain-delay-s 0 &
server=$!
stop() {
    trap - EXIT INT TERM
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for ((tries = 0; ; tries++)); do
    if fetch "$URL/readyz" >/dev/null 2>&1; then
        break
    fi
    kill -0 "$server" 2>/dev/null || fail "the server stopped before it was ready"
    ((tries < 150)) || fail "the server was not ready after 30 seconds"
    sleep 0.2
done

read -r request <"$PROJECT/data/requests.jsonl"
echo
echo "request to $ROUTE:"
pretty <<<"$request"
answer=$(fetch "$ROUTE" "$request") || fail "the server refused the request: $answer"
echo "answer:"
pretty <<<"$answer"
cat <<EOF

try it yourself:

  curl $ROUTE -H 'content-type: application/json' -d '$request'

EOF
if [[ ${DEMO_ONCE:-0} == 1 || ! -t 1 ]]; then
    exit 0
fi
echo "serving $PROJECT at $URL; Ctrl-C stops it"
wait "$server"
