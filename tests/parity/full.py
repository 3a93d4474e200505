#!/usr/bin/env python3
"""SD 1.5 and SDXL base at their full shapes: random weights in float16, one step at 512 x 512 by
txt2img and by diffusers in float32 on the same weights, stage by stage, and what memory ours took.

    full.py make KIND...      write the models into build/parity-full (2 GB, 7 GB)
    full.py reference KIND... what diffusers makes of them; one component in memory at a time
    full.py compare KIND...   run build/bin/txt2img, in each precision, and print a line for each
    full.py all KIND...       the three in a row

The reference of sdxl needs 12 GB of memory for its UNet. `make parity-full` runs all.
"""

import gc
import json
import pathlib
import shutil
import subprocess
import sys
import time

import diffusers
import numpy
import torch
import transformers
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection,
                          CLIPTokenizer)

import bfloat16
import kinds

TREE = kinds.ROOT.parents[1]
sys.path.insert(0, str(TREE / "tests/bench/engine"))
import random_model  # noqa: E402

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

OUT = TREE / "build/parity-full"
SIZE, SEED, STEPS, GUIDANCE = 512, 7, 1, 5.0
PROMPT = "a flaming obsidian sword, pixel art!"
NEGATIVE = "blurry, low quality"
# Of each precision: the error of a forward of the UNet (in f32 of any stage), and of the picture.
# Bf16 may be over it where diffusers' own UNet is further off in torch.bfloat16; the line says so.
# Int8 has no bound: it is reported.
BOUNDS = {"f32": (1e-4, 45.0), "f16": (1e-2, 45.0), "bf16": (2e-2, 30.0), "int8": (1.0, 0.0)}
SHARD_BYTES = 2 << 30

# ---- Full shapes: the narrow configs with the published widths -----------------------------------

WIDE_TEXT = {"vocab_size": 49408}
TEXTS = {
    "clip-l": WIDE_TEXT | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                           "num_hidden_layers": 12, "projection_dim": 768},
    "openclip-g": WIDE_TEXT | {"hidden_size": 1280, "intermediate_size": 5120,
                               "num_attention_heads": 20, "num_hidden_layers": 32,
                               "projection_dim": 1280},
}
UNETS = {
    "sd": {"attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
           "cross_attention_dim": 768, "norm_num_groups": 32, "sample_size": 64},
    "sdxl": {"addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
             "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
             "norm_num_groups": 32, "projection_class_embeddings_input_dim": 2816,
             "sample_size": 128, "transformer_layers_per_block": [1, 2, 10]},
}
VAE = {"block_out_channels": [128, 256, 512, 512], "norm_num_groups": 32, "sample_size": 512}
FULL = {"sd15": "sd", "sdxl": "sdxl"}


def full_configs(kind):
    """(unet, vae, {text encoder: config}) of a kind at full width."""
    narrow = kinds.KINDS[kind]
    unet = kinds.UNETS[narrow["unet"][0]] | UNETS[FULL[kind]]
    vae = kinds.VAES["kl"] | narrow["vae"][1] | VAE
    return unet, vae, {name: kinds.TEXTS[name][1] | TEXTS[name] for name in narrow["texts"]}


def folder_of(kind):
    return OUT / kind


# ---- Models --------------------------------------------------------------------------------------


def random_weight(name, shape, generator):
    """As kinds.randomise, one tensor at a time."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith("embedding.weight"):
        return 0.02 * noise
    if len(shape) >= 2:
        return noise / noise[0].numel()**0.5
    if name.endswith("weight"):
        return 1.0 + 0.1 * noise
    return 0.05 * noise


def write_weights(folder, stem, build, seed):
    """A component's weights in shards, never all in memory."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in build().state_dict().items()
                  if "position_ids" not in name}
    generator = torch.Generator().manual_seed(seed)
    shards, shard, size = [], {}, 0
    for name, shape in shapes.items():
        shard[name] = random_weight(name, shape, generator).half()
        size += shard[name].numel() * 2
        if size >= SHARD_BYTES or name == list(shapes)[-1]:
            path = folder / f"shard-{len(shards)}.safetensors"
            save_file(shard, path, metadata={"format": "pt"})
            shards.append(path)
            shard, size = {}, 0
    if len(shards) == 1:
        shards[0].rename(folder / f"{stem}.safetensors")
        return
    places = {}
    for i, path in enumerate(shards, 1):
        name = f"{stem}-{i:05}-of-{len(shards):05}.safetensors"
        with safe_open(path, "pt") as file:
            places |= {key: name for key in file.keys()}
        path.rename(folder / name)
    kinds.write_json(folder / f"{stem}.safetensors.index.json",
                     {"metadata": {}, "weight_map": places})


def make(kind):
    folder = folder_of(kind)
    shutil.rmtree(folder, ignore_errors=True)
    unet, vae, texts = full_configs(kind)
    narrow = kinds.KINDS[kind]
    kinds.write_model_index(folder, narrow)
    # Trailing: the one step begins at the last timestep, where all is noise.
    kinds.write_json(folder / "scheduler/scheduler_config.json", kinds.EULER_TRAILING)
    for i, (name, config) in enumerate(texts.items()):
        suffix = "" if i == 0 else f"_{i + 1}"
        kinds.write_json(folder / f"text_encoder{suffix}/config.json", config)
        cls = CLIPTextModelWithProjection if kinds.TEXTS[name][0] else CLIPTextModel
        write_weights(folder / f"text_encoder{suffix}", "model",
                      lambda cls=cls, config=config: cls(CLIPTextConfig(**config)), 10 + i)
        random_model.write_tokenizer(folder / f"tokenizer{suffix}", f"tokenizer{suffix}")
    for name, cls, config, seed in (("unet", UNet2DConditionModel, unet, 20),
                                    ("vae", AutoencoderKL, vae, 30)):
        kinds.write_json(folder / name / "config.json", config)
        write_weights(folder / name, "diffusion_pytorch_model",
                      lambda cls=cls, config=config: cls.from_config(config), seed)


# ---- Reference -----------------------------------------------------------------------------------


def encode(folder, suffix, prompt, cls, xl):
    """(hidden states that the UNet sees, pooled or None) of one text encoder."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
    model = cls.from_pretrained(folder / f"text_encoder{suffix}", dtype=torch.float32)
    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True,
                    return_tensors="pt").input_ids
    out = model(ids, output_hidden_states=True)
    if not xl:
        return out.last_hidden_state, None
    return out.hidden_states[-2], out[0]


def encode_all(folder, prompts, xl):
    """([2, 77, d], pooled [2, d] or None)."""
    rows = []
    for prompt in prompts:
        first, _ = encode(folder, "", prompt, CLIPTextModel, xl)
        if not xl:
            rows.append((first, None))
            continue
        second, pooled = encode(folder, "_2", prompt, CLIPTextModelWithProjection, xl)
        rows.append((torch.cat([first, second], -1), pooled))
    hidden = torch.cat([row[0] for row in rows])
    return hidden, torch.cat([row[1] for row in rows]) if xl else None


def reference(kind):
    folder, xl = folder_of(kind), FULL[kind] == "sdxl"
    hidden, pooled = encode_all(folder, [NEGATIVE, PROMPT], xl)
    gc.collect()
    scheduler = EulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(STEPS)
    noise = torch.randn((1, 4, SIZE // 8, SIZE // 8),
                        generator=torch.Generator("cpu").manual_seed(SEED))
    latents = noise * scheduler.init_noise_sigma
    added = {"text_embeds": pooled, "time_ids": torch.tensor(
        [[SIZE, SIZE, 0, 0, SIZE, SIZE]] * 2, dtype=torch.float32)} if xl else None
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    started = time.monotonic()
    t = scheduler.timesteps[0]
    arguments = scheduler.scale_model_input(torch.cat([latents] * 2), t), t
    options = {"encoder_hidden_states": hidden, "added_cond_kwargs": added}
    raw = unet(*arguments, **options).sample
    print(f"{kind}: UNet of the reference {time.monotonic() - started:.0f} s", flush=True)
    rounded = bfloat16.predict(unet, arguments, options)
    del unet
    gc.collect()
    uncond, text = raw.chunk(2)
    guided = uncond + GUIDANCE * (text - uncond)
    latents = scheduler.step(guided, t, latents).prev_sample
    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32)
    image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    tensors = {"negative_prompt_embeds": hidden[:1], "prompt_embeds": hidden[1:],
               "noise_pred_uncond.0": uncond, "noise_pred_text.0": text, "noise_pred.0": guided,
               "latents.0": latents, "image": image,
               "bfloat16": torch.tensor(list(map(bfloat16.relative_error, rounded, raw)))}
    if xl:
        tensors["pooled_prompt_embeds"] = pooled[1:]
    save_file({name: value.contiguous() for name, value in tensors.items()},
              OUT / f"{kind}.reference.safetensors")


# ---- Comparison ----------------------------------------------------------------------------------


def decibel(ours, theirs):
    """Of the 8-bit pictures, each rounded as diffusers does."""
    bytes_of = [((image / 2 + 0.5).clamp(0, 1) * 255).numpy().round() for image in (ours, theirs)]
    error = numpy.mean((bytes_of[0] - bytes_of[1]) ** 2)
    return 99.0 if error == 0 else 10 * numpy.log10(255**2 / error)


def compare(kind):
    return all([compare_precision(kind, precision) for precision in BOUNDS])


def compare_precision(kind, precision):
    dump = OUT / f"{kind}.ours.safetensors"
    command = [TREE / "build/bin/txt2img", "--model", folder_of(kind), "--prompt", PROMPT,
               "--negative", NEGATIVE, "--width", SIZE, "--height", SIZE, "--steps", STEPS,
               "--guidance", GUIDANCE, "--seed", SEED, "--dump", dump, "--timings",
               "--precision", precision, "--force-precision",
               "--output", OUT / f"{kind}.png"]
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True,
                          text=True)
    if done.returncode != 0:
        print(f"FAIL {kind} {precision}: {done.stderr.strip()}")
        return False
    peak = json.loads(done.stdout)["rss_peak_bytes"]
    ours, theirs = load_file(dump), load_file(OUT / f"{kind}.reference.safetensors")
    stages = {"text": ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds"),
              "unet": ("noise_pred_uncond.0", "noise_pred_text.0", "noise_pred.0"),
              "latents": ("latents.0",), "image": ("image",)}
    errors = {stage: max(bfloat16.relative_error(ours[name], theirs[name]) for name in names
                         if name in theirs) for stage, names in stages.items()}
    psnr = decibel(ours["image"], theirs["image"])
    most, least = BOUNDS[precision]
    # Guidance magnifies what rounding adds to the two predictions, so those are what is bounded.
    raw = max(bfloat16.relative_error(ours[name], theirs[name]) for name in stages["unet"][:2])
    error, beside = (max(errors.values()) if precision == "f32" else raw), ""
    if precision == "bf16":
        torch_error = theirs["bfloat16"].max().item()
        beside = f"{' OVER THE BOUND' if error > most else ''}, torch's own bf16 {torch_error:.1e}"
        most = max(most, torch_error)
    good = error <= most and psnr >= least
    text = " ".join(f"{stage} {value:.1e}" for stage, value in errors.items())
    print(f"{'ok  ' if good else 'FAIL'} {kind} {SIZE}x{SIZE} {STEPS} step f16 weights "
          f"{precision:4} {text} forward {raw:.1e}{beside} {psnr:.1f} dB  "
          f"peak {peak / 2**30:.2f} GiB resident\n     {done.stdout.strip()}")
    return good


def main():
    torch.set_grad_enabled(False)
    actions = {"make": make, "reference": reference, "compare": compare}
    if len(sys.argv) < 3 or sys.argv[1] not in [*actions, "all"] or set(sys.argv[2:]) - set(FULL):
        print(__doc__)
        return 2
    failed = 0
    for kind in sys.argv[2:]:
        if sys.argv[1] == "all":
            # A process for each: none keeps memory, and a child's peak begins with its parent's.
            steps = ([sys.executable, __file__, name, kind] for name in actions)
            failed += any(subprocess.run(step, check=False).returncode != 0 for step in steps)
        else:
            failed += actions[sys.argv[1]](kind) is False
    if sys.argv[1] == "all":
        print(f"{len(sys.argv) - 2 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
