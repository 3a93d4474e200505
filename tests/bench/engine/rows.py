"""The rows of `make bench BENCH=engine`: one function each, in the order of the table that promises
them, with the row's name. Models are random ones of real shape (random_model.py: 9 GB of disk in
build/bench-models); each figure comes from txt2img as a user runs it (txt2img.py).

A row is what the function returns: value, unit, the ceiling of the same run in the same unit (or
None), and what that ceiling is; or a list of parts, each with its name before. BENCH_ROWS=WORD runs
only rows that have WORD in their names.
"""

import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import random_model
from .txt2img import TREE, Bench, Failed, finish, start

SIZE = {"width": 512, "height": 512}
GUIDED = {"guidance": 5}
# Seconds a step with guidance of stable-diffusion.cpp 97d2990, best of all its settings, on 2 cores
# of an AMD Zen 4, where sgemm of OpenBLAS reaches 165 GFLOP/s over both: measured once, not here.
SDCPP = {"sdxl": 24.1, "sd15": 29.1}
SDCPP_SGEMM = 165

# ---- The UNet ------------------------------------------------------------------------------------


def unet_run(bench, model, precision, steps=3):
    return bench.run(model, precision=precision, steps=steps, **SIZE, **GUIDED)


def share_of(run, kind, what):
    """The best step's rate as a share of a ceiling. Convolutions count as plain sums."""
    rate, ceiling = run.step_flop / run.best("best_step_seconds") * 1e-9, run.ceiling[kind]
    if ceiling == 0:
        raise Failed(f"there is no {what} on this machine to hold it against")
    # On a machine that does other things too, CPU seconds say more than the clock.
    by_cpu = run.step_flop / run.best("best_step_cpu_seconds") * 1e-9 / run.ceiling[f"{kind}_cpu"]
    return 100 * rate / ceiling, "%", ceiling, f"GFLOP/s of {what}; ours {rate:.0f}, " \
        f"{run.best('best_step_seconds'):.2f} s a step; by CPU seconds {100 * by_cpu:.0f} %"


SGEMM = "cblas_sgemm 2048^3"
BF16 = "oneDNN's bf16 3x3 convolution 1280->1280 at 32x32"


def unet_fp32_sd15(bench):
    return share_of(unet_run(bench, "sd15", "f32"), "sgemm", SGEMM)


def unet_fp32_sdxl(bench):
    return share_of(unet_run(bench, "sdxl", "f32"), "sgemm", SGEMM)


def unet_bf16_sdxl(bench):
    return share_of(unet_run(bench, "sdxl", "bf16"), "bf16", BF16)


def unet_bf16_sd15(bench):
    return share_of(unet_run(bench, "sd15", "bf16"), "bf16", BF16)


def int8_picture(bench):
    return bench.run("sdxl", precision="int8", steps=20, **SIZE, **GUIDED)


def unet_int8_sdxl(bench):
    ours, bf16 = int8_picture(bench), unet_run(bench, "sdxl", "bf16")
    times = bf16.best("best_step_seconds") / ours.best("best_step_seconds")
    most = ours.ceiling["int8"] / max(ours.ceiling["bf16"], ours.ceiling["sgemm"])
    return times, "times", most, "oneDNN's int8 convolution over the better of bf16's and sgemm" \
        f"; {ours.best('best_step_seconds'):.2f} s a step"


# ---- Whole pictures and their stages -------------------------------------------------------------


def ideal(run, flop, kind):
    """Seconds that so many operations take at a ceiling."""
    kind = kind if run.ceiling[kind] > run.ceiling["sgemm"] else "sgemm"
    return flop / run.ceiling[kind] * 1e-9, f"all its sums at the rate of {kind}"


def sdxl_512_20steps_int8(bench):
    run = int8_picture(bench)
    return run.last["picture_seconds"], "s", *ideal(run, run.last["flop"], "int8")


def vae_512_bf16(bench):
    run = unet_run(bench, "sdxl", "bf16")
    return run.best("decode_seconds"), "s", *ideal(run, run.last["decode_flop"], "bf16")


def turbo(bench, precision, steps, pictures):
    return bench.run("turbo", precision=precision, steps=steps, guidance=1, batch=pictures, **SIZE)


def taesd_512(bench):
    run = turbo(bench, "bf16", 1, 3)
    return run.best("decode_seconds"), "s", *ideal(run, run.last["decode_flop"], "sgemm")


def text_sdxl(bench):
    """On a small picture, which the encoders do not see; what bf16 permits, as the rows beside it:
    they are in float32 where a processor is no faster in float16."""
    run, exact = (bench.run("turbo", precision=precision, steps=1, width=64, height=64, batch=3,
                            **GUIDED) for precision in ("bf16", "f32"))
    seconds, what = ideal(run, run.last["text_flop"], "sgemm")
    return run.best("text_seconds"), "s", seconds, \
        f"{what}; the permission is bf16, in float32 {exact.best('text_seconds'):.2f} s"


def image_of(path):
    """Digest of the decoded floats in a dump."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8:8 + length])["image"]["data_offsets"]
    return hashlib.sha256(data[8 + length + begin:8 + length + end]).hexdigest()


def vae_1024_bf16_memory(bench):
    """The large VAE behind a tiny UNet, so that the decode decides the process's peak."""
    tiny, vae = TREE / "tests/golden/tiny-sdxl", bench.model("sdxl") / "vae"
    runs, images = [], []
    for bands in ({}, {"band_rows": 4096}):
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as dump:
            runs.append(bench.run(tiny, vae=vae, precision="bf16", steps=1, width=1024, height=1024,
                                  dump=dump.name, **bands))
            images.append(image_of(dump.name))
    if images[0] != images[1]:
        raise Failed("the banded decode differs from the whole one")
    weights = sum(file.stat().st_size for folder in (tiny, vae)
                  for file in folder.rglob("*.safetensors"))
    banded, whole = (run.last["rss_peak_bytes"] - weights for run in runs)
    return banded * 1e-9, "GB", whole * 1e-9, "the whole decode, bit for bit the same"


def turbo_1step_bf16(bench):
    run = turbo(bench, "bf16", 1, 3)
    return run.best("picture_seconds"), "s", *ideal(run, run.last["flop"], "bf16")


def turbo_4step_int8(bench):
    run = turbo(bench, "int8", 4, 2)
    return run.best("picture_seconds"), "s", *ideal(run, run.last["flop"], "int8")


# ---- The process ---------------------------------------------------------------------------------


def files_seconds(folder):
    """Seconds to read a model's files, which then are in the page cache: of a second time."""
    for _ in range(2):
        began = time.monotonic()
        for file in folder.rglob("*.safetensors"):
            with open(file, "rb", buffering=0) as data:
                while data.read(1 << 22):
                    pass
    return time.monotonic() - began


def cold_start_bf16(bench):
    reading = files_seconds(bench.model("sdxl")), "reading the files from the page cache"
    parts = []
    with tempfile.TemporaryDirectory(dir=random_model.MODELS) as cache:
        for steps, part in ((1, "first start"), (2, "second start")):  # two runs, not one kept
            run = bench.run("sdxl", precision="bf16", steps=steps, weight_cache=cache, width=64,
                            height=64, **GUIDED)
            parts.append((part, run.last["first_unet_seconds"], "s", *reading))
    return parts


def rss(run, model):
    weights = sum(file.stat().st_size for file in model.rglob("*.safetensors"))
    return run.last["rss_peak_bytes"] * 1e-9, "GB", weights * 1e-9, "the model's files"


def rss_sdxl_512_bf16(bench):
    return rss(unet_run(bench, "sdxl", "bf16"), bench.model("sdxl"))


def rss_sdxl_512_int8(bench):
    return rss(int8_picture(bench), bench.model("sdxl"))


def threads_1_2(bench):
    options = {"precision": "f32", "steps": 3} | SIZE | GUIDED
    one = bench.run("sd15", threads=1, **options)
    two = bench.run("sd15", threads=2, **options)
    alone = one.best("best_step_seconds")
    more = two.ceiling["sgemm"] / one.ceiling["sgemm"], "cblas_sgemm's own, of two threads"
    workers = [start(bench.model("sd15"), threads=1, **options) for _ in range(2)]
    steps = [json.loads(finish(worker)[-1])["step_seconds"] for worker in workers]
    return [("2 threads over 1", alone / two.best("best_step_seconds"), "times", *more),
            ("two one-thread workers over one",
             sum(one.last["step_seconds"] / step for step in steps), "times", *more)]


def sdcpp_ratio(bench):
    """Our best precision beside the other's best, whose machine was another: so also both as if
    sgemm were as fast there as here."""
    parts = []
    for model in ("sdxl", "sd15"):
        steps, sgemm = {}, 0
        for precision in ("f32", "bf16", "int8"):
            try:
                run = int8_picture(bench) if (model, precision) == ("sdxl", "int8") else \
                    unet_run(bench, model, precision)
                steps[precision] = run.best("best_step_seconds")
                sgemm = max(sgemm, run.ceiling["sgemm"])
            except Failed:
                pass
        if not steps:
            raise Failed("no precision runs")
        best = min(steps, key=steps.get)
        times = SDCPP[model] / steps[best]
        parts.append((f"{model}, {best}", times, "times", SDCPP[model],
                      "s a step of stable-diffusion.cpp, not run here but where sgemm makes "
                      f"{SDCPP_SGEMM} GFLOP/s, here {sgemm:.0f}: at equal sgemm "
                      f"{times * SDCPP_SGEMM / sgemm:.1f} times"))
    return parts


# ---- The table -----------------------------------------------------------------------------------

AT_LEAST, AT_MOST = True, False
# Row: targets of its parts, and whether more is better.
TABLE = [
    (unet_fp32_sd15, [70], AT_LEAST),
    (unet_fp32_sdxl, [80], AT_LEAST),
    (unet_bf16_sdxl, [80], AT_LEAST),
    (unet_bf16_sd15, [70], AT_LEAST),
    (unet_int8_sdxl, [1.8], AT_LEAST),
    (sdxl_512_20steps_int8, [100], AT_MOST),
    (vae_512_bf16, [8], AT_MOST),
    (taesd_512, [0.5], AT_MOST),
    (text_sdxl, [0.7], AT_MOST),
    (vae_1024_bf16_memory, [1.2], AT_MOST),
    (turbo_1step_bf16, [6], AT_MOST),
    (turbo_4step_int8, [13], AT_MOST),
    (cold_start_bf16, [20, 3], AT_MOST),
    (rss_sdxl_512_bf16, [9], AT_MOST),
    (rss_sdxl_512_int8, [6], AT_MOST),
    (threads_1_2, [1.85, 1.85], AT_LEAST),
    (sdcpp_ratio, [3, 6], AT_LEAST),
]


def row_of(name, part, target, more_is_better, figures):
    value, unit, ceiling, what = figures
    holds = value >= target if more_is_better else value <= target
    return {"bench": "engine", "name": name, "part": part, "value": round(value, 4), "unit": unit,
            "reference": ceiling, "reference_is": what, "target": target,
            "at_least": more_is_better, "holds": holds}


def missing(name, target, more_is_better, reason):
    """The row that could not be measured: its promise is broken."""
    return {"bench": "engine", "name": name, "part": "", "value": None, "unit": "",
            "reference": None, "reference_is": reason, "target": target,
            "at_least": more_is_better, "holds": False}


def measure():
    """All rows, or those that BENCH_ROWS names a part of."""
    wanted = os.environ.get("BENCH_ROWS", "").replace(",", " ").split()
    bench, rows = Bench(), []
    for function, targets, more in TABLE:
        name = function.__name__
        if wanted and not any(word in name for word in wanted):
            continue
        print(name, file=sys.stderr)
        try:
            figures = function(bench)
        except (Failed, subprocess.CalledProcessError, OSError) as failure:
            rows += [missing(name, target, more, str(failure)) for target in targets]
            continue
        parts = figures if isinstance(figures, list) else [("", *figures)]
        rows += [row_of(name, part[0], target, more, part[1:5])
                 for part, target in zip(parts, targets, strict=True)]
    return rows
