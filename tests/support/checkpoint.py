"""A single-file checkpoint with random weights, in the names and shapes of one of
tests/golden/checkpoints: for tests that need a file to point at, not a picture to compare."""

import json
import math
import random
import struct
from pathlib import Path

LISTS = Path(__file__).resolve().parents[1] / "golden/checkpoints"
# The high bytes of halves from 1/32 to 1/8 in magnitude, of both signs.
SMALL = bytes((0x28 | byte & 0x07 | byte & 0x80) for byte in range(256))


def write_checkpoint(path, kind="sdxl"):
    """kind: the stem of a list. The same kind gives the same file."""
    rng = random.Random(kind)
    tensors = json.loads((LISTS / f"{kind}.json").read_text())["tensors"]
    header, data = {}, []
    offset = 0
    for name, (shape, _, _) in tensors.items():
        count = math.prod(shape)
        halves = bytearray(2 * count)
        halves[0::2] = rng.randbytes(count)
        halves[1::2] = rng.randbytes(count).translate(SMALL)
        header[name] = {"dtype": "F16", "shape": shape,
                        "data_offsets": [offset, offset + 2 * count]}
        data.append(bytes(halves))
        offset += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    return path
