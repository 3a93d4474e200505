#!/usr/bin/python3
"""Draws docs/diagrams/*.puml into docs/images/*.svg and *.png with PlantUML (make diagrams). Each
picture carries the digest of the text that it was drawn from, so that a stale one is found without
PlantUML.

  deploy/local/diagrams.py            draw all
  deploy/local/diagrams.py --check    fail when a picture is not of its text as it is now
"""

import hashlib
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

SOURCES = pathlib.Path("docs/diagrams")
PICTURES = pathlib.Path("docs/images")
STYLE = SOURCES / "style.iuml"
BACKGROUND = "#FEFEFE"  # style.iuml's
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def stamp_of(source):
    digest = hashlib.sha256(source.read_bytes() + STYLE.read_bytes()).hexdigest()
    return f"{source}, sha256 {digest}"


def finished_svg(text, stamp):
    """Without PlantUML's comments (the machine's and Java's names among them); with a background of
    its own, fonts that other machines have, and a line for each element."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    # The first five are those of the root: a fixed size, stretching, and what nobody reads.
    text = re.sub(r' (style|contentScriptType|contentStyleType|zoomAndPan|preserveAspectRatio)'
                  r'="[^"]*"', "", text, count=5)
    text = text.replace('font-family="DejaVu Sans"',
                        'font-family="DejaVu Sans, Verdana, sans-serif"')
    text = text.replace("<defs/>", f"<!-- {stamp} -->"
                        f'<rect width="100%" height="100%" fill="{BACKGROUND}"/>', 1)
    return re.sub(r">\s*<(?!/text>)", ">\n<", text).strip() + "\n"


def finished_png(data, stamp):
    """Without notes of the program that wrote it; with ours."""
    kept, place = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunk = data[place:place + 12 + length]
        place += len(chunk)
        if chunk[4:8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(chunk)
    body = b"tEXtSource\0" + stamp.encode()
    note = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return b"".join(kept[:-1] + [note] + kept[-1:])


def draw(sources):
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("svg", "png"):
            subprocess.run(["plantuml", f"-t{kind}", "-charset", "UTF-8", "-o", folder,
                            *map(str, sources)], check=True)
        for source in sources:
            drawn = pathlib.Path(folder) / source.stem
            stamp = stamp_of(source)
            svg = drawn.with_suffix(".svg").read_text(encoding="utf-8")
            png = drawn.with_suffix(".png").read_bytes()
            (PICTURES / f"{source.stem}.svg").write_text(finished_svg(svg, stamp), encoding="utf-8")
            (PICTURES / f"{source.stem}.png").write_bytes(finished_png(png, stamp))
    print(f"drew {len(sources)} diagrams into {PICTURES}")


def check(sources):
    stale = []
    for source in sources:
        for suffix in (".svg", ".png"):
            picture = PICTURES / (source.stem + suffix)
            if not picture.exists() or stamp_of(source).encode() not in picture.read_bytes():
                stale.append(f"{picture} is not of {source} as it is now: run make diagrams")
    print("\n".join(stale) if stale else f"{len(sources)} diagrams are of their texts")
    return 1 if stale else 0


def main():
    sources = sorted(SOURCES.glob("*.puml"))
    if sys.argv[1:] == ["--check"]:
        return check(sources)
    draw(sources)
    return 0


if __name__ == "__main__":
    sys.exit(main())
