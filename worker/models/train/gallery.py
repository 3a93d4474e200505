"""The pictures of the README: a large grid of chosen prompts and an 8 x 8 sheet, one seed each.

    python gallery.py --model worker/models/demo --out docs/images [--txt2img build/bin/txt2img]

Nothing is picked by hand: every cell is its prompt's first seed.
"""

import argparse
import os
import tempfile

import numpy as np
from PIL import Image

import captions
import evaluate

GRID = [
    "a flaming obsidian sword", "a frozen blue battle axe", "a green potion on a dark background",
    "a golden crown in a dungeon", "an electric purple staff, night sky background", "a red steel shield",
    "a cursed black book", "a wooden treasure chest in a forest", "a glowing pink gem",
    "an emerald ring on parchment", "a white bone bow under a night sky", "a silver helmet on a gradient background",
    "a poisonous dagger", "a cyan crystal wand", "a pair of orange leather boots",
    "a scarlet scroll on old parchment", "a steel hammer crackling with lightning", "a golden coin on a light background",
]


def sheet_prompts(count=64):
    rng = np.random.default_rng(64)
    prompts = []
    for k in range(count):
        a = captions.random_attributes(rng)
        a["kind"], a["said"] = captions.NAMES["kind"][k % 26], True
        a["colour"] = captions.NAMES["colour"][(5 * k + k // 26) % 12]
        prompts.append(captions.compose(rng, a, background=True))
    return prompts


def join(files, columns, size, gap):
    pictures = [Image.open(f).convert("RGB").resize((size, size), Image.LANCZOS) for f in files]
    rows = -(-len(pictures) // columns)
    image = Image.new("RGB", (columns * (size + gap) - gap, rows * (size + gap) - gap), (24, 24, 28))
    for k, picture in enumerate(pictures):
        image.paste(picture, ((k % columns) * (size + gap), (k // columns) * (size + gap)))
    return image


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="worker/models/demo")
    parser.add_argument("--out", default="docs/images")
    parser.add_argument("--txt2img", help="make the pictures with this program; else with diffusers")
    parser.add_argument("--scheduler", default="euler")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    make = evaluate.with_program if options.txt2img else evaluate.with_diffusers
    with tempfile.TemporaryDirectory() as folder:
        for name, prompts, columns, size, gap in (("demo-items.png", GRID, 6, 160, 4), ("demo-sheet.png", sheet_prompts(), 8, 128, 2)):
            jobs = [(p, options.seed, os.path.join(folder, f"{name}-{k}.png")) for k, p in enumerate(prompts)]
            make(options, jobs)
            join([f for _, _, f in jobs], columns, size, gap).save(os.path.join(options.out, name), optimize=True)
