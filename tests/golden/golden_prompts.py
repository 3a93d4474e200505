"""Prompts with weights, in several chunks, with layers left out and with learnt words, as embeddings
that transformers and diffusers compute: for tiny-sdxl, and for a tiny Stable Diffusion with one text
encoder that is made here, whose config names the end token as newer ones do.

A case without A1111's syntax is what diffusers' own encode_prompt gives; one with it comes from
tests/parity/prompts.py. Learnt words are loaded with diffusers' load_textual_inversion.
"""

import json
import pathlib
import sys

import torch
import transformers
from diffusers import (AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline,
                       UNet2DConditionModel)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import golden_pipeline
import golden_tokenizer

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "parity"))
import prompts  # pylint: disable=wrong-import-position

# diffusers 0.42 looks for a level of names that transformers 5 no longer has.
transformers.CLIPTextModel.text_model = property(lambda self: self)

WIDTH = 24
STRIDE = 7  # of the numbers that the fixture keeps: some of every token
SWORD = "a flaming obsidian sword, pixel art!"
LONG = ", ".join(["a glowing purple potion in a round glass bottle", "cork stopper",
                  "sparkling, fantasy game icon", "an ancient wooden shield with iron rivets"] * 2)
# The last comma of the first chunk is near enough to its end, then it is too far away.
NEAR = "sword " * 14 + ", " + "axe ring staff potion shield crown dagger book amulet cloak"
FAR = "a sword, " + "axe ring staff potion shield crown dagger book amulet cloak " * 4

# name: prompt, negative prompt, clip_skip, whether diffusers' own pipeline computes it
CASES = {
    "plain": (SWORD, "blurry, low quality", 0, True),
    "weights": ("a (flaming:1.4) obsidian [sword], ((pixel) art:0.8)!", "(blurry:1.3)", 0, False),
    "nested": (r"a \(very\) ((old: 1.2 ) [sharp [axe]] ) ] :) (unclosed [glow", "[[fog]]", 0,
               False),
    "negative_weights": ("(a red axe:0) (rust:-0.7) sword", "(((blurry)))", 0, False),
    "long": (LONG, "blurry", 0, False),
    "near_comma": (NEAR, "", 0, False),
    "far_comma": (FAR, "", 0, False),
    "break": ("a sword BREAK (a shield:0.7) BREAK BREAK a ring", "low BREAK quality", 0, False),
    "long_negative": ("an axe", LONG, 0, False),
    "skip_1": (SWORD, "blurry", 1, True),
    "skip_2": (SWORD, "blurry", 2, True),
    "skip_weights": ("a (flaming:1.4) " + LONG, "(blurry:0.6)", 1, False),
    "empty": ("", "", 0, True),
    "learnt": ("a sword, gem-style, pixel art", "a sword", 0, True),
    "learnt_token": ("a <leaf> on a gem-style sword, <leaf>", "<leaf>", 0, True),
    "learnt_weights": ("a (sword in gem-style:1.3), [<leaf>]", "(gem-style)", 0, False),
    # Three vectors do not fit behind 74 tokens, and not behind 73.
    "learnt_at_the_end": ("x " * 73 + "gem-style y", "", 0, False),
    "learnt_skip": ("gem-style", "", 1, True),
}


def build_sd(folder, vocabulary, merges):
    """A Stable Diffusion whose text encoder is worth a test, and as little else as can be."""
    generator = torch.Generator().manual_seed(7)
    golden_tokenizer.write_sdxl_form(folder / "tokenizer", vocabulary, merges, "!")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    kept = {path: path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    text_encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(vocabulary), max_position_embeddings=77, hidden_size=WIDTH,
        intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, hidden_act="gelu",
        projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id, pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id))
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDTH,
        attention_head_dim=2)
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, norm_num_groups=4,
        latent_channels=4, sample_size=64)
    for model in (text_encoder, unet, vae):
        golden_pipeline.randomise(model, generator)
        model.to(torch.float16).eval()
    scheduler = EulerDiscreteScheduler.from_config(golden_pipeline.SCHEDULER_CONFIG)
    StableDiffusionPipeline(
        text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, vae=vae, scheduler=scheduler,
        safety_checker=None, feature_extractor=None,
        requires_safety_checker=False).save_pretrained(folder)
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def write_embeddings(folder):
    """gem-style has three vectors, leaf one; in the web UI's form, diffusers' and SDXL's."""
    generator = torch.Generator().manual_seed(8)

    def draw(*shape):
        return 0.5 * torch.randn(shape, generator=generator)

    for model in ("tiny-sd", "tiny-sdxl"):
        (folder / model).mkdir(parents=True)
    save_file({"emb_params": draw(3, WIDTH)}, folder / "tiny-sd" / "gem-style.safetensors")
    save_file({"<leaf>": draw(WIDTH).half()}, folder / "tiny-sd" / "of diffusers.safetensors")
    for name, count in (("gem-style", 3), ("leaf", 1)):
        save_file({"clip_l": draw(count, 32).bfloat16(), "clip_g": draw(count, 64).half()},
                  folder / "tiny-sdxl" / f"{name}.safetensors")


def load(folder, embeddings):
    if "xl" in folder.name:
        pipe = golden_pipeline.load(folder)
    else:
        pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32,
                                                       safety_checker=None)
    tokens = {"gem-style": "gem-style", "leaf": "<leaf>", "of diffusers": "<leaf>"}
    for path in sorted((embeddings / folder.name).iterdir()):
        state = {key: value.float()
                 for key, value in load_file(path).items()}
        for key, encoder, tokenizer in (("clip_l", "text_encoder", "tokenizer"),
                                        ("clip_g", "text_encoder_2", "tokenizer_2")):
            if key in state:
                pipe.load_textual_inversion(
                    state[key], token=tokens[path.stem], text_encoder=getattr(pipe, encoder),
                    tokenizer=getattr(pipe, tokenizer))
        if "clip_l" not in state:
            pipe.load_textual_inversion(next(iter(state.values())), token=tokens[path.stem])
    return pipe


def expected(pipe, prompt, negative, skip, own):
    is_xl = hasattr(pipe, "text_encoder_2")
    skip = skip or None
    if not own:
        return prompts.embeddings(pipe, prompt, negative, True, skip)
    if is_xl:
        values = pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=True,
                                    negative_prompt=negative or None, clip_skip=skip)
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds",
                 "negative_pooled_prompt_embeds")
    else:
        values = pipe.encode_prompt(prompt, "cpu", 1, True, negative_prompt=negative,
                                    clip_skip=skip)
        names = ("prompt_embeds", "negative_prompt_embeds")
    out = dict(zip(names, values))
    # The two ways say the same where both can speak.
    for name, value in prompts.embeddings(pipe, prompt, negative, True, skip).items():
        assert torch.allclose(value, out[name], atol=1e-5), (prompt, name)
    return out


def make(root, tiny):
    root = pathlib.Path(root)
    folder = root / "prompts"
    lines = (tiny / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    vocabulary = json.loads((tiny / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    build_sd(folder / "tiny-sd", vocabulary, [tuple(line.split(" ")) for line in lines])
    write_embeddings(folder / "embeddings")
    tensors = {}
    with torch.no_grad():
        for model in (folder / "tiny-sd", tiny):
            pipe = load(model, folder / "embeddings")
            for name, (prompt, negative, skip, own) in CASES.items():
                for key, value in expected(pipe, prompt, negative, skip, own).items():
                    tensors[f"{model.name}.{name}.{key}"] = value.flatten()[::STRIDE].clone()
    save_file(tensors, root / "expected" / "prompts.safetensors")
    cases = [{"name": name, "prompt": prompt, "negative_prompt": negative, "clip_skip": skip}
             for name, (prompt, negative, skip, _) in CASES.items()]
    (root / "expected" / "prompts.json").write_text(json.dumps({"cases": cases}, indent=1) + "\n")
