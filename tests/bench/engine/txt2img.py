"""Runs txt2img for the rows of the engine's bench: each run in a process of its own, once, with the
ceilings of the machine measured before and after it."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import random_model

TREE = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("CRAFTERSE_BUILD", TREE / "build/release"))
TXT2IMG = Path(os.environ.get("CRAFTERSE_BIN", TREE / "build/bin")) / "txt2img"
PROMPT, NEGATIVE = "a flaming obsidian sword, pixel art", "blurry, low quality"


class Failed(Exception):
    """A run that gave no figure; the text says why."""


class Run:
    """What one process did: a picture's figures (the last, and the best of each stage), the whole
    process's, and the ceilings beside it."""

    def __init__(self, command, lines, seconds, ceiling):
        self.command, self.seconds, self.ceiling = command, seconds, ceiling
        self.pictures = [json.loads(line) for line in lines if line.startswith("{")]
        self.last = self.pictures[-1]

    def best(self, field):
        return min(picture[field] for picture in self.pictures)

    @property
    def step_flop(self):
        """Of one call of the UNet."""
        return self.last["denoise_flop"] / self.last["steps"]


def ceiling_of(threads):
    """GFLOP/s of sgemm and of oneDNN's convolutions: tests/bench/engine/ceiling.c."""
    done = subprocess.run([BUILD / "test/bench/engine/ceiling", str(threads)], text=True,
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def arguments_of(model, options):
    command = [str(TXT2IMG), "--model", str(model), "--prompt", PROMPT, "--negative", NEGATIVE,
               "--seed", "1", "--timings"]
    options = {"weight_cache": ""} | options  # none, unless the row is about it
    for name, value in options.items():
        if (name, value) == ("precision", "f32"):
            continue  # the default
        option = "--" + name.replace("_", "-")
        command += [option] if value is True else [option, str(value)]
    return command


def start(model, **options):
    """The process, its stdout open; the picture goes nowhere."""
    output = tempfile.NamedTemporaryFile(suffix=".png")
    command = arguments_of(model, {"output": output.name} | options)
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.picture = output  # kept until the process is done
    return process


def finish(process):
    """Its lines, or Failed."""
    out, errors = process.communicate()
    process.picture.close()
    if process.returncode != 0:
        told = errors.strip().splitlines()
        raise Failed(told[-1] if told else f"txt2img ended with {process.returncode}")
    return out.splitlines()


class Bench:
    """Runs that rows share: the same model and options are run once."""

    def __init__(self):
        self.runs = {}
        self.threads = ceiling_of(0)["threads"]

    def model(self, name):
        return random_model.path_of(name)

    def run(self, name, **options):
        """A run of one of random_model's models, or of a folder."""
        key = (str(name), tuple(sorted(options.items())))
        if key not in self.runs:
            self.runs[key] = self._run(name, options)
        if isinstance(self.runs[key], Failed):
            raise self.runs[key]
        return self.runs[key]

    def _run(self, name, options):
        model = name if isinstance(name, Path) else self.model(name)
        shown = shlex.join(arguments_of(model, options)[1:]).replace(f"{TREE}/", "")
        print(f"  txt2img {shown}", file=sys.stderr)
        threads = options.get("threads", self.threads)
        before, began = ceiling_of(threads), time.monotonic()
        try:
            lines = finish(start(model, **options))
        except Failed as failure:
            return failure
        seconds, after = time.monotonic() - began, ceiling_of(threads)
        ceiling = {kind: max(before[kind], after[kind]) for kind in before}
        return Run(shown, lines, seconds, ceiling)
