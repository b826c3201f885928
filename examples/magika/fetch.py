"""Brings Magika's model and what its configuration says into the folder model/ of this example.

    python3 fetch.py                            # out of the pinned wheel, which pip fetches
    python3 fetch.py --package FOLDER           # out of a folder that the package is installed in
    python3 fetch.py --into PROJECT             # into another copy of this example

Only the standard library is needed, and nothing is installed: the wheel is read as the archive that it is, so that its platform does not
matter. The digest of the model stands in millstream.yaml, too.
"""

import argparse
import csv
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

VERSION = "1.0.3"
SHA256 = "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529"
PLATFORM = "manylinux_2_28_x86_64"
MODEL = "magika/models/standard_v3_3/"
TYPES = "magika/config/content_types_kb.min.json"


def fetched(folder):
    """The wheel, as pip brings it, whose mirror is honoured."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*pip, "--only-binary=:all:", "--platform", PLATFORM, "--dest", folder, f"magika=={VERSION}"], check=True
    )
    (wheel,) = pathlib.Path(folder).glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"fetch: {wheel.name} has sha256 {digest}, wanted {SHA256}")
    return zipfile.Path(wheel)


def table(path, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write(package, into):
    """The model, its configuration, and the two feature sets that the graph looks labels up in."""
    config = json.loads((package / (MODEL + "config.min.json")).read_text(encoding="utf-8"))
    known = json.loads((package / TYPES).read_text(encoding="utf-8"))
    if config["mid_size"] or config["use_inputs_at_offsets"]:
        sys.exit("fetch: the model reads more of a file than its two ends, which this example does not know how to cut out")
    into.mkdir(parents=True, exist_ok=True)
    (into / "model.onnx").write_bytes((package / (MODEL + "model.onnx")).read_bytes())
    (into / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def truth(value):
        return "true" if value else "false"

    guesses = []
    for place, guess in enumerate(config["target_labels_space"], 1):
        output = config["overwrite_map"].get(guess, guess)
        threshold = config["thresholds"].get(guess, config["medium_confidence_threshold"])
        guesses.append([place, guess, output, threshold, truth(known[output]["is_text"])])
    table(into / "guesses.csv", ["place", "guess", "output", "threshold", "text"], guesses)

    labels = sorted({"empty", "txt", "unknown", *(output for _, _, output, _, _ in guesses)})
    types = []
    for label in labels:
        text = known[label]["is_text"]
        mime = known[label]["mime_type"] or ("text/plain" if text else "application/octet-stream")
        types.append([label, mime, truth(text)])
    table(into / "types.csv", ["label", "mime", "text"], types)


def main():
    parser = argparse.ArgumentParser(description="Brings Magika's model into model/.")
    parser.add_argument("--package", type=pathlib.Path, help="a folder that magika is installed in, in place of the wheel")
    parser.add_argument("--into", type=pathlib.Path, default=pathlib.Path(__file__).parent, help="the project's folder")
    arguments = parser.parse_args()
    into = arguments.into / "model"
    if arguments.package:
        write(arguments.package, into)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(fetched(folder), into)


if __name__ == "__main__":
    main()
