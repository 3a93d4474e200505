"""Measures the model on the held-out prompts: five seeds of each, judged by the classifier.

    python evaluate.py --model worker/models/demo --classifier build/demo/classifier.pt --out build/demo/figures
    python evaluate.py ... --txt2img build/bin/txt2img        pictures made by the project's own program

Writes figures.json, figures.md, the pictures and sheet.png: one row a prompt, with a green frame where
kind and colour are both right, orange where one is, red where none.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import time

import numpy as np
import torch
from PIL import Image, ImageDraw

import captions
import classify


def with_diffusers(options, jobs):
    """All pictures in batches; a picture depends only on its own prompt and seed."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline
    pipeline = StableDiffusionXLPipeline.from_pretrained(options.model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    kind = {"euler": EulerDiscreteScheduler, "ddim": DDIMScheduler}[options.scheduler]
    extra = {"clip_sample": False, "set_alpha_to_one": True} if options.scheduler == "ddim" else {}
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **extra)
    for k in range(0, len(jobs), 20):
        some = jobs[k: k + 20]
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            out = pipeline([p for p, _, _ in some], num_inference_steps=options.steps, guidance_scale=options.guidance,
                           generator=[torch.Generator().manual_seed(s) for _, s, _ in some]).images
        for (_, _, path), picture in zip(some, out):
            picture.save(path)


def with_program(options, jobs):
    def make(job):
        prompt, seed, path = job
        subprocess.run([options.txt2img, "--model", options.model, "--prompt", prompt, "--width", "128", "--height", "128",
                        "--steps", str(options.steps), "--guidance", str(options.guidance), "--seed", str(seed),
                        "--scheduler", options.scheduler, "--output", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(make, jobs))


def sheet(path, rows):
    """Two columns of prompts, five seeds each."""
    width, height, per = 5 * 84 + 8, 84 + 16, 2
    lines = (len(rows) + per - 1) // per
    image = Image.new("RGB", (per * width, lines * height), (24, 24, 28))
    pen = ImageDraw.Draw(image)
    for n, row in enumerate(rows):
        x0, y0 = (n // lines) * width + 4, (n % lines) * height
        pen.text((x0, y0 + 2), row["prompt"][:68], fill=(230, 230, 230))
        for k, one in enumerate(row["pictures"]):
            right = (one["kind"] == row["kind"]) + (one["colour"] == row["colour"])
            frame = ((220, 50, 50), (240, 160, 40), (60, 190, 80))[right]
            x, y = x0 + k * 84, y0 + 15
            pen.rectangle((x, y, x + 82, y + 82), fill=frame)
            image.paste(Image.open(one["file"]).convert("RGB").resize((78, 78), Image.LANCZOS), (x + 2, y + 2))
    image.quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="worker/models/demo")
    parser.add_argument("--classifier", default="build/demo/classifier.pt")
    parser.add_argument("--out", default="build/demo/figures")
    parser.add_argument("--txt2img", help="make the pictures with this program; else with diffusers")
    parser.add_argument("--scheduler", default="euler")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=5, help="only the first so many seeds")
    parser.add_argument("--workers", type=int, default=1, help="programs at once")
    parser.add_argument("--bf16", action="store_true", help="diffusers in bfloat16: quicker, for a look while training")
    options = parser.parse_args()
    os.makedirs(os.path.join(options.out, "pictures"), exist_ok=True)
    held = captions.held_out()
    rows, jobs = [], []
    for n, prompt in enumerate(held["prompts"]):
        files = [os.path.join(options.out, "pictures", f"{n:02d}-{seed}.png") for seed in held["seeds"][: options.seeds]]
        rows.append({**prompt, "pictures": [{"file": f} for f in files]})
        jobs += [(prompt["prompt"], seed, f) for seed, f in zip(held["seeds"], files)]
    start = time.time()
    (with_program if options.txt2img else with_diffusers)(options, jobs)
    seconds = time.time() - start

    net, score = classify.load(options.classifier)
    pictures = np.stack([np.asarray(Image.open(f).convert("RGB")) for _, _, f in jobs])
    named = classify.names(net, pictures)
    flat = [(row, one) for row in rows for one in row["pictures"]]
    for k, (row, one) in enumerate(flat):
        for head in classify.HEADS:
            one[head] = named[head][k]
    share = lambda head, among: float(np.mean([one[head] == row[head] for row, one in among]))
    effects = [(row, one) for row, one in flat if row["effect"]]
    figures = {
        "made_by": "txt2img" if options.txt2img else "diffusers", "scheduler": options.scheduler, "steps": options.steps,
        "guidance": options.guidance, "prompts": len(rows), "pictures": len(flat), "seconds": round(seconds, 1),
        "kind_right": round(share("kind", flat), 4), "colour_right": round(share("colour", flat), 4),
        "both_right": round(float(np.mean([o["kind"] == r["kind"] and o["colour"] == r["colour"] for r, o in flat])), 4),
        "effect_right_where_asked": round(share("effect", effects), 4),
        "classifier_on_fresh_drawings": {h: round(v, 4) for h, v in score.items()},
        "kind_by_kind": {k: round(share("kind", [f for f in flat if f[0]["kind"] == k]), 2) for k in captions.KINDS},
        "colour_by_colour": {c: round(share("colour", [f for f in flat if f[0]["colour"] == c]), 2) for c in captions.COLOURS},
        "rows": [{**row, "pictures": [[one[h] for h in classify.HEADS] for one in row["pictures"]]} for row in rows],
    }
    with open(os.path.join(options.out, "figures.json"), "w") as f:
        rest = {k: v for k, v in figures.items() if k != "rows"}
        f.write(json.dumps(rest, indent=2)[:-2] + ',\n  "rows": [\n    ')
        f.write(",\n    ".join(json.dumps(row) for row in figures["rows"]) + "\n  ]\n}\n")
    percent = lambda v: f"{100 * v:.1f} %"
    with open(os.path.join(options.out, "figures.md"), "w") as f:
        f.write(f"| pictures by | sampler | kind right | colour right | both right | effect right, where asked |\n|---|---|---|---|---|---|\n"
                f"| {figures['made_by']} | {options.scheduler}, {options.steps} steps, guidance {options.guidance:g} | {percent(figures['kind_right'])} "
                f"| {percent(figures['colour_right'])} | {percent(figures['both_right'])} | {percent(figures['effect_right_where_asked'])} |\n")
    sheet(os.path.join(options.out, "sheet.png"), rows)
    print({k: v for k, v in figures.items() if k != "rows"})
    wrong = {}
    for row, one in flat:
        for head in ("kind", "colour"):
            if one[head] != row[head]:
                key = f"{head}: {row[head]} seen as {one[head]}"
                wrong[key] = wrong.get(key, 0) + 1
    print("\n".join(f"{count:3d}  {key}" for key, count in sorted(wrong.items(), key=lambda item: -item[1])[:25]))
