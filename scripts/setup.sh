#!/bin/sh
# Puts the ONNX Runtime shared library into .onnxruntime/ of this checkout, unless one is there already.
#
# The library comes out of the pinned Python wheel, fetched by pip (so a mirror set in pip's configuration is honoured)
# and checked against the digests below. Nothing is installed: the Python version of the wheel does not matter.
set -eu

VERSION=1.32.0
cd "$(dirname "$0")/.."
DEST=.onnxruntime

for library in "$DEST"/libonnxruntime*; do
    if [ -e "$library" ]; then
        echo "setup: ONNX Runtime is there: $library"
        exit 0
    fi
done

fail() {
    echo "setup: $1" >&2
    exit 1
}

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-amd64)
        PLATFORM=manylinux_2_28_x86_64
        SHA256=99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8
        ;;
    Linux-aarch64 | Linux-arm64)
        PLATFORM=manylinux_2_28_aarch64
        SHA256=e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054
        ;;
    Darwin-arm64)
        PLATFORM=macosx_14_0_arm64
        SHA256=d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e
        ;;
    *)
        fail "there is no ONNX Runtime $VERSION wheel for $(uname -s) $(uname -m);
       build or install the library (1.24 or later) and name it in ORT_DYLIB_PATH"
        ;;
esac

command -v python3 >/dev/null 2>&1 || fail "python3 is needed to fetch ONNX Runtime (Debian: apt-get install python3-pip)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is needed to fetch ONNX Runtime (Debian: apt-get install python3-pip)"

TEMP=$(mktemp -d)
trap 'rm -rf "$TEMP"' EXIT
trap 'exit 1' HUP INT TERM

python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.12 --platform "$PLATFORM" \
    --dest "$TEMP" "onnxruntime==$VERSION" || fail "pip could not download onnxruntime $VERSION for $PLATFORM"

mkdir -p "$DEST"
python3 - "$TEMP" "$SHA256" "$DEST" <<'PYTHON' || fail "the downloaded wheel cannot be used"
import glob, hashlib, os, re, sys, zipfile

temp, wanted, dest = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(temp, "*.whl"))
with open(wheel, "rb") as file:
    got = hashlib.sha256(file.read()).hexdigest()
if got != wanted:
    sys.exit(f"setup: {os.path.basename(wheel)} has sha256 {got}, wanted {wanted}")
with zipfile.ZipFile(wheel) as archive:
    pattern = re.compile(r"onnxruntime/capi/libonnxruntime\.(so[.\d]*|[.\d]*dylib)$")
    (member,) = [name for name in archive.namelist() if pattern.match(name)]
    # Written beside its place and renamed: an interrupted run leaves nothing that looks whole.
    partial = os.path.join(dest, "partial")
    with open(partial, "wb") as file:
        file.write(archive.read(member))
    os.rename(partial, os.path.join(dest, os.path.basename(member)))
PYTHON
echo "setup: ONNX Runtime $VERSION is now in $DEST"
