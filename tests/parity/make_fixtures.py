#!/usr/bin/env python3
"""Makes the list of `make parity` anew: the models (models, weights), the adapters, the cases
(cases/KIND.json), what diffusers makes of them (cases/KIND.safetensors) and how far it is from that
in bfloat16 (cases/bf16.json).

    make_fixtures.py            everything
    make_fixtures.py KIND...    only these kinds' cases; models and adapters stay

`make parity-fixtures` runs it with the versions of tests/golden/requirements.txt. The fixtures are
committed, so that the list needs none of these packages.
"""

import hashlib
import json
import shutil
import sys
import time

import torch
from safetensors.torch import load_file, save_file

import adapters
import bfloat16
import controls
import kinds
import reference
import samplers

# Of a stage's tensors each such value is kept, of pictures each such pixel: the strides share no
# factor with the shapes, so that all rows, columns and channels are met.
STRIDES = {"text": 13, "unet": 5, "latents": 1, "image": 61}


def plan(kind):
    """[(sampler, schedule, control)]: every sampler, schedule and control at least once, in other
    pairs from kind to kind."""
    turn = list(kinds.KINDS).index(kind)
    free_samplers = rotate(list(samplers.SAMPLERS), 5 * turn)
    free_schedules = rotate([name for name in samplers.SCHEDULES if name != "default" and
                             name not in exempt(kind)], 3 * turn)
    cases, spare = [("", "default", "none")], list(free_samplers)
    for control in rotate([name for name in controls.CONTROLS if name != "none"], 4 * turn):
        candidates = [name for name in (spare or free_samplers) if fits(name, control)]
        if not candidates:
            candidates = [name for name in free_samplers if fits(name, control)]
        sampler = candidates[(turn + len(cases)) % len(candidates)]
        if sampler in spare:
            spare.remove(sampler)
        schedule = next((name for name in free_schedules if samplers.accepts(sampler, name) and
                         schedule_fits(name, control)), "default")
        if schedule != "default":
            free_schedules.remove(schedule)
        cases.append((sampler, schedule, control))
    cases += [(sampler, "default", "none") for sampler in spare]
    for schedule in free_schedules:
        sampler = next(name for name in rotate(list(samplers.SAMPLERS), turn)
                       if samplers.accepts(name, schedule))
        cases.append((sampler, schedule, "none"))
    return cases


def exempt(kind):
    """A single file has no scheduler_config.json that could say so."""
    return ["zero_snr"] if "file" in kinds.KINDS[kind] else []


def rotate(names, by):
    by %= len(names)
    return names[by:] + names[:by]


def fits(sampler, control):
    """The guiders' interval counts steps; a sampler that looks twice in a step would blur it."""
    counts_steps = control in ("interval", "shortcuts")
    return not counts_steps or sampler not in samplers.SECOND_ORDER + ("pndm",)


def schedule_fits(schedule, control):
    """zero_snr takes a folder of its own, the engine's options too: one at a time."""
    return schedule != "zero_snr" or control in ("none", "negative", "rescale", "clip_skip")


class Pool:
    """Tensors by content: what several cases have alike is stored once."""

    def __init__(self, prefix):
        self.prefix, self.tensors = prefix, {}

    def add(self, tensor):
        tensor = tensor.detach().contiguous()
        digest = hashlib.sha256(tensor.numpy().tobytes() + str(tensor.shape).encode()).hexdigest()
        name = f"{self.prefix}{digest[:8]}"
        self.tensors[name] = tensor
        return name

    def save(self, path):
        save_file(self.tensors, path)


def stage_of(name):
    return {"noise_pred": "unet", "latents": "latents", "image": "image"}.get(
        name.split(".")[0], "text")


def reduce(tensors, own, texts):
    """{stage's name: name in the pool} of a picture."""
    expected = {}
    for name, tensor in tensors.items():
        stage = stage_of(name)
        values = tensor[0].flatten(1).T if stage == "image" else tensor.flatten()
        pool = texts if stage == "text" else own
        expected[name] = pool.add(values[::STRIDES[stage]])
    return expected


def request(sampler, schedule, settings):
    """The case's settings as the engine's request has them."""
    fields = dict(settings) | samplers.SCHEDULES[schedule][0]
    if sampler:
        fields["scheduler"] = sampler
    return fields


def make_case(kind, sampler, schedule, control, own, texts):
    pictures = reference.run(kind, sampler, schedule, control)
    case = {"sampler": sampler or "own", "schedule": schedule, "control": control,
            "settings": request(sampler, schedule, reference.settings_of(kind, control)),
            "engine": controls.engine_options(control),
            "pictures": [reduce(tensors, own, texts) for tensors in pictures]}
    return case


def write_zero_snr(kind, config):
    """The scheduler_config.json that replaces the folder's in the zero_snr cases."""
    kinds.write_json(kinds.ROOT / f"cases/{kind}.zero_snr.json",
                     config | samplers.SCHEDULES["zero_snr"][1])


def make_kind(kind, texts):
    started = time.monotonic()
    own, cases = Pool(""), []
    pipe = reference.load(kind)
    adapters.make(kind, pipe)
    if "zero_snr" not in exempt(kind):
        write_zero_snr(kind, kinds.KINDS[kind]["scheduler"])
    for sampler, schedule, control in plan(kind):
        try:
            cases.append(make_case(kind, sampler, schedule, control, own, texts))
        except Exception as error:
            raise RuntimeError(f"{kind} {sampler} {schedule} {control}") from error
    folder = kinds.ROOT / "cases"
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    (folder / f"{kind}.json").write_text(
        f'{{"adapters":"{adapters.folder_of(kind).name}","cases":[\n{lines}\n]}}\n')
    own.save(folder / f"{kind}.safetensors")
    print(f"{kind}: {len(cases)} cases, {time.monotonic() - started:.1f} s", flush=True)


def write_inputs():
    """What every case shares, and what the list must hold."""
    save_file({"init_image": reference.init_image(), "mask_image": reference.mask_image()},
              kinds.ROOT / "cases/inputs.safetensors")
    kinds.write_json(kinds.ROOT / "cases/list.json", {
        "kinds": [*kinds.KINDS, *kinds.FORMS], "same_as": kinds.FORMS,
        "samplers": [*samplers.SAMPLERS], "schedules": [*samplers.SCHEDULES],
        "controls": [*controls.CONTROLS], "strides": STRIDES,
        "exempt": {kind: exempt(kind) for kind in kinds.KINDS if exempt(kind)},
        "files": {kind: about["file"] for kind, about in kinds.KINDS.items() if "file" in about}})


def main():
    # One thread: the order of additions, and so the last bits, do not depend on the machine.
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    wanted = sys.argv[1:]
    if not wanted:
        kinds.make()
        shutil.rmtree(kinds.ROOT / "adapters", ignore_errors=True)
        shutil.rmtree(kinds.ROOT / "cases", ignore_errors=True)
    (kinds.ROOT / "cases").mkdir(exist_ok=True)
    texts, path = Pool("text."), kinds.ROOT / "cases/texts.safetensors"
    if wanted and path.exists():
        texts.tensors = load_file(path)
    write_inputs()
    for kind in wanted or kinds.KINDS:
        make_kind(kind, texts)
    texts.save(path)
    bfloat16.write(wanted or kinds.KINDS)


if __name__ == "__main__":
    main()
