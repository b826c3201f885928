"""File types by the Python package `magika`. Asked for by tests/cli/magika.rs: `expected.py CHECKOUT CORPUS`.

Writes files of many kinds into the folder CORPUS: made up here, or taken from the checkout, whole and in parts. Prints a line of JSON for
each: its path, its bytes in base64, and what `Magika.identify_bytes` says of it.
"""

import base64
import bz2
import gzip
import io
import json
import lzma
import pathlib
import pickle
import random
import struct
import sys
import tarfile
import wave
import zipfile
import zlib

from magika import Magika

checkout, corpus = map(pathlib.Path, sys.argv[1:3])
rng = random.Random(7)
# What `bytes.strip` takes for whitespace, and three that only `str.strip` does.
SPACE = b" \t\n\r\x0b\x0c"
NOT_SPACE = [b"\x1c", b"\x85", b"\xa0"]
WORDS = "the file has what a reader of it may want to know and no more than fits on one page".split()
PROSE = " ".join(rng.choice(WORDS) for _ in range(4000)).encode()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("prose.txt")
        member.size = 5000
        archive.addfile(member, io.BytesIO(PROSE[:5000]))
    return buffer.getvalue()


def sound():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(rng.randbytes(9000))
    return buffer.getvalue()


def picture():
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + bytes((x * y) % 256 for x in range(64 * 3)) for y in range(64))
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def paper():
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R >>",
        b"<< /Length 44 >>\nstream\nBT /F1 24 Tf 72 700 Td (A page of it) Tj ET\nendstream",
    ]
    text, places = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(text))
        text += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return text + b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (table, len(text))


def formats():
    office = {"[Content_Types].xml": "<Types/>", "word/document.xml": "<w:document/>", "_rels/.rels": "<Relationships/>"}
    yield "a.gz", gzip.compress(PROSE, mtime=0)
    yield "a.bz2", bz2.compress(PROSE)
    yield "a.xz", lzma.compress(PROSE)
    yield "a.zlib", zlib.compress(PROSE)
    yield "a.zip", zipped({"prose.txt": PROSE, "a/b.bin": rng.randbytes(3000)})
    yield "a.docx", zipped(office)
    yield "a.jar", zipped({"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n", "a/A.class": b"\xca\xfe\xba\xbe" + bytes(200)})
    yield "a.tar", tarred()
    yield "a.png", picture()
    yield "a.pdf", paper()
    yield "a.wav", sound()
    yield "a.gif", b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
    yield "a.bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 3126, 0, 0, 54, 40, 32, 32, 1, 24, 0, 3072, 2835, 2835, 0, 0) + rng.randbytes(3072)
    yield "a.elf", b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x401000, 64, 0, 0, 64, 56, 1, 64, 0, 0) + bytes(2000)
    yield "a.exe", b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0\xb8" + bytes(43) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0d\x86\x01\0" + bytes(3000)
    yield "a.pickle", pickle.dumps({"words": WORDS, "n": list(range(500))}, protocol=4)
    yield "a.html", b"<!DOCTYPE html>\n<html><head><title>A page</title></head><body>\n<p>" + PROSE[:3000] + b"</p>\n</body></html>\n"
    yield "a.xml", b'<?xml version="1.0"?>\n<rows>\n' + b'  <row id="1" name="a"/>\n' * 90 + b"</rows>\n"
    yield "a.css", b"body { margin: 0; color: #333 }\n.wide > a:hover { text-decoration: underline; padding: 1em 2em }\n" * 9
    yield "a.js", b"const rows = [];\nexport function add(row) {\n  rows.push({ ...row, at: Date.now() });\n  return rows.length;\n}\n" * 5
    yield "a.c", b'#include <stdio.h>\n\nint main(int argc, char **argv) {\n    printf("%d\\n", argc);\n    return 0;\n}\n'
    yield "a.go", b'package main\n\nimport "fmt"\n\nfunc main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Println(i)\n\t}\n}\n'
    yield "a.java", b'package a.b;\n\nimport java.util.List;\n\npublic class A {\n    private final List<String> rows = List.of("a");\n}\n'
    yield "a.sql", b"CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\nSELECT name FROM rows WHERE id > 7;\n" * 3
    yield "a.pem", b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(rng.randbytes(900)) + b"-----END CERTIFICATE-----\n"
    yield "a.ini", b"[server]\nhost = localhost\nport = 8080\n\n[client]\nretries = 3\n"
    yield "a.tsv", b"".join(b"%d\t%s\t%d\n" % (i, rng.choice(WORDS).encode(), i * i) for i in range(200))


def edges():
    """Files about as long as what is read of them, with whitespace at their ends, and such as the model is not asked about."""
    yield "empty", b""
    for length in (1, 2, 5, 7, 8, 9, 20):
        yield f"prose-{length}", PROSE[:length]
        yield f"random-{length}", rng.randbytes(length)
        yield f"high-{length}", b"\xff" * length
    for length in (1, 7, 8, 100, 4095, 4096, 4097, 9000):
        yield f"blank-{length}", (SPACE * length)[:length]
        yield f"blank-then-{length}", b" " * length + PROSE[:7]
        yield f"blank-then-more-{length}", b"\x0b\x0c\n" * length + PROSE[:500]
        yield f"blank-after-{length}", PROSE[:500] + SPACE * length
    for length in (1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 5000, 8191, 8192, 8193, 20000):
        yield f"long-{length}", PROSE[:length]
        yield f"wide-{length}", SPACE * 20 + PROSE[: length - 240] + SPACE * 20
        yield f"bytes-{length}", rng.randbytes(length)
    # What is read ends in the middle of a character; so it is no text.
    yield "cut", b" " * 4095 + "é".encode() * 3
    yield "whole", b" " * 4094 + "é".encode() * 3
    yield "surrogate", b"\xed\xa0\x80 a"
    yield "overlong", b"\xc0\xaf a"
    yield "zeros", bytes(3000)
    yield "letters", bytes(rng.choice(b"abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(3000))
    for place, space in enumerate(NOT_SPACE):
        yield f"no-space-{place}", space * 12 + PROSE[:300] + space * 12


def repository():
    """Files of the checkout by kind, and parts of them, of which the model is less sure."""
    folders = ("benches", "crates", "docs", "examples", "scripts", "src", "tests")
    files = [*checkout.glob("*"), *(file for folder in folders for file in (checkout / folder).rglob("*"))]
    kinds = {}
    for file in sorted(files):
        path = file.relative_to(checkout).as_posix()
        if file.is_file() and "hostile" not in path and "__pycache__" not in path and file.stat().st_size < 300_000:
            kinds.setdefault(file.suffix or file.name, []).append(path)
    for suffix, paths in kinds.items():
        for path in paths[:: max(1, len(paths) // 5)][:5]:
            content, name = (checkout / path).read_bytes(), path.replace("/", "-")
            yield name, content
            for length in (12, 40, 150):
                at = rng.randrange(max(1, len(content) - length))
                yield f"{name}-{at}-{length}", content[at : at + length]


magika = Magika()
for group in (formats, edges, repository):
    for name, content in group():
        path = corpus / f"{group.__name__}-{name}"
        path.write_bytes(content)
        said = magika.identify_bytes(content).prediction
        answer = {"guess": said.dl.label, "label": said.output.label, "score": said.score, "reason": said.overwrite_reason}
        answer |= {"mime": said.output.mime_type, "text": said.output.is_text}
        print(json.dumps({"path": str(path), "content": base64.b64encode(content).decode(), "answer": answer}))
