"""Models of real size with random weights, for the benches: nothing is downloaded.

    tests/bench/engine/random_model.py NAME...    sd15 (2 GB), sdxl (7 GB), turbo (links to
                                                  sdxl), taesd (10 MB): build/bench-models

Folders as the diffusers library writes them, float16, with the published shapes. A weight of n
inputs has a deviation of 1/sqrt(n), so activations keep their size from layer to layer; the numbers
repeat after some tens of thousands, which speed does not notice but errors do (full.py of
tests/parity draws each number). A folder is made once.
"""

import itertools
import json
import os
import random
import shutil
import struct
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
MODELS = TREE / "build/bench-models"
BLOCK = 65521  # numbers that are drawn; a prime, so that no two rows of a matrix begin alike
STRIDE = 7919  # of the beginnings of tensors in it
REPEATS = 64   # of the block in one write

# ---- Configs -------------------------------------------------------------------------------------

CLIP_L = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072,
          "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768,
          "hidden_act": "quick_gelu", "eos_token_id": 2, "max_position_embeddings": 77}
OPENCLIP_G = CLIP_L | {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20,
                       "num_hidden_layers": 32, "projection_dim": 1280, "hidden_act": "gelu"}
UNET_SD = {"in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280],
           "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
           "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
           "transformer_layers_per_block": [1, 1, 1, 1], "layers_per_block": 2,
           "attention_head_dim": 8, "cross_attention_dim": 768, "norm_num_groups": 32,
           "sample_size": 64, "use_linear_projection": False}
UNET_XL = {"in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280],
           "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
           "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
           "transformer_layers_per_block": [1, 2, 10], "layers_per_block": 2,
           "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048, "norm_num_groups": 32,
           "sample_size": 128, "use_linear_projection": True, "addition_embed_type": "text_time",
           "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}
VAE = {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 4,
       "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32,
       "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
       "sample_size": 512, "scaling_factor": 0.13025}
TAESD = {"_class_name": "AutoencoderTiny", "in_channels": 3, "out_channels": 3,
         "latent_channels": 4, "encoder_block_out_channels": [64] * 4,
         "decoder_block_out_channels": [64] * 4, "num_encoder_blocks": [1, 3, 3, 3],
         "num_decoder_blocks": [3, 3, 3, 1], "act_fn": "relu", "upsampling_scaling_factor": 2,
         "latent_magnitude": 3, "latent_shift": 0.5, "scaling_factor": 1.0}
# Trailing: few steps begin where all is noise.
EULER = {"_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
         "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "steps_offset": 1,
         "prediction_type": "epsilon", "timestep_spacing": "trailing"}

# ---- Names and shapes of weights -----------------------------------------------------------------


def layer(name, out, *inputs, bias=True):
    yield f"{name}.weight", (out, *inputs)
    if bias:
        yield f"{name}.bias", (out,)


def conv(name, out, inputs, size=3, bias=True):
    return layer(name, out, inputs, size, size, bias=bias)


def norm(name, channels):
    return layer(name, channels)


def clip_weights(config, projected):
    width, deep = config["hidden_size"], config["intermediate_size"]
    yield "text_model.embeddings.token_embedding.weight", (config["vocab_size"], width)
    yield "text_model.embeddings.position_embedding.weight", (77, width)
    for i in range(config["num_hidden_layers"]):
        prefix = f"text_model.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from layer(f"{prefix}.self_attn.{part}", width, width)
        yield from norm(f"{prefix}.layer_norm1", width)
        yield from norm(f"{prefix}.layer_norm2", width)
        yield from layer(f"{prefix}.mlp.fc1", deep, width)
        yield from layer(f"{prefix}.mlp.fc2", width, deep)
    yield from norm("text_model.final_layer_norm", width)
    if projected:
        yield "text_projection.weight", (config["projection_dim"], width)


def resnet(name, inputs, out, time):
    yield from norm(f"{name}.norm1", inputs)
    yield from conv(f"{name}.conv1", out, inputs)
    if time:
        yield from layer(f"{name}.time_emb_proj", out, time)
    yield from norm(f"{name}.norm2", out)
    yield from conv(f"{name}.conv2", out, out)
    if inputs != out:
        yield from conv(f"{name}.conv_shortcut", out, inputs, 1)


def transformer(name, width, depth, config):
    linear = config["use_linear_projection"]
    yield from norm(f"{name}.norm", width)
    for end in ("proj_in", "proj_out"):
        yield from (layer(f"{name}.{end}", width, width) if linear
                    else conv(f"{name}.{end}", width, width, 1))
    for i in range(depth):
        prefix = f"{name}.transformer_blocks.{i}"
        for n in (1, 2, 3):
            yield from norm(f"{prefix}.norm{n}", width)
        for attention, context in (("attn1", width), ("attn2", config["cross_attention_dim"])):
            yield from layer(f"{prefix}.{attention}.to_q", width, width, bias=False)
            yield from layer(f"{prefix}.{attention}.to_k", width, context, bias=False)
            yield from layer(f"{prefix}.{attention}.to_v", width, context, bias=False)
            yield from layer(f"{prefix}.{attention}.to_out.0", width, width)
        yield from layer(f"{prefix}.ff.net.0.proj", 8 * width, width)
        yield from layer(f"{prefix}.ff.net.2", width, 4 * width)


def unet_weights(config):
    widths, depths = config["block_out_channels"], config["transformer_layers_per_block"]
    layers, time, last = config["layers_per_block"], 4 * widths[0], len(widths) - 1
    yield from conv("conv_in", widths[0], config["in_channels"])
    yield from layer("time_embedding.linear_1", time, widths[0])
    yield from layer("time_embedding.linear_2", time, time)
    if "addition_embed_type" in config:
        yield from layer("add_embedding.linear_1", time,
                         config["projection_class_embeddings_input_dim"])
        yield from layer("add_embedding.linear_2", time, time)
    skips, width = [widths[0]], widths[0]
    for level, out in enumerate(widths):
        for i in range(layers):
            yield from resnet(f"down_blocks.{level}.resnets.{i}", width, out, time)
            if "Attn" in config["down_block_types"][level]:
                yield from transformer(f"down_blocks.{level}.attentions.{i}", out, depths[level],
                                       config)
            width = out
            skips.append(out)
        if level < last:
            yield from conv(f"down_blocks.{level}.downsamplers.0.conv", out, out)
            skips.append(out)
    yield from resnet("mid_block.resnets.0", width, width, time)
    yield from transformer("mid_block.attentions.0", width, depths[-1], config)
    yield from resnet("mid_block.resnets.1", width, width, time)
    for block in range(last + 1):
        level = last - block
        for i in range(layers + 1):
            yield from resnet(f"up_blocks.{block}.resnets.{i}", width + skips.pop(), widths[level],
                              time)
            width = widths[level]
            if "Attn" in config["up_block_types"][block]:
                yield from transformer(f"up_blocks.{block}.attentions.{i}", width, depths[level],
                                       config)
        if block < last:
            yield from conv(f"up_blocks.{block}.upsamplers.0.conv", width, width)
    yield from norm("conv_norm_out", width)
    yield from conv("conv_out", config["out_channels"], width)


def vae_mid(side, width):
    yield from resnet(f"{side}.mid_block.resnets.0", width, width, 0)
    yield from norm(f"{side}.mid_block.attentions.0.group_norm", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from layer(f"{side}.mid_block.attentions.0.{part}", width, width)
    yield from resnet(f"{side}.mid_block.resnets.1", width, width, 0)


def vae_weights(config):
    widths, codes = config["block_out_channels"], config["latent_channels"]
    yield from conv("quant_conv", 2 * codes, 2 * codes, 1)
    yield from conv("post_quant_conv", codes, codes, 1)
    for side, levels, extra in (("encoder", widths, 0), ("decoder", widths[::-1], 1)):
        width, ends = levels[0], ("down", "downsamplers") if side == "encoder" else (
            "up", "upsamplers")
        yield from conv(f"{side}.conv_in", width, 3 if side == "encoder" else codes)
        for level, out in enumerate(levels):
            for i in range(config["layers_per_block"] + extra):
                yield from resnet(f"{side}.{ends[0]}_blocks.{level}.resnets.{i}", width, out, 0)
                width = out
            if level < len(levels) - 1:
                yield from conv(f"{side}.{ends[0]}_blocks.{level}.{ends[1]}.0.conv", out, out)
        yield from vae_mid(side, widths[-1])
        yield from norm(f"{side}.conv_norm_out", width)
        yield from conv(f"{side}.conv_out", 2 * codes if side == "encoder" else 3, width)


def taesd_weights(config):
    """Numbered in the order of torch's Sequential, in which activations and upsamplings count."""
    width = config["decoder_block_out_channels"][0]

    def blocks(side, first, count):
        for i, k in itertools.product(range(first, first + count), (0, 2, 4)):
            yield from conv(f"{side}.layers.{i}.conv.{k}", width, width)

    yield from conv("encoder.layers.0", width, 3)
    at = 1
    for stage, count in enumerate(config["num_encoder_blocks"]):
        if stage > 0:
            yield from conv(f"encoder.layers.{at}", width, width, bias=False)
            at += 1
        yield from blocks("encoder", at, count)
        at += count
    yield from conv(f"encoder.layers.{at}", config["latent_channels"], width)
    yield from conv("decoder.layers.0", width, config["latent_channels"])
    at = 2  # after an activation
    for stage, count in enumerate(config["num_decoder_blocks"]):
        yield from blocks("decoder", at, count)
        at += count
        if stage < len(config["num_decoder_blocks"]) - 1:
            at += 1  # after an upsampling
            yield from conv(f"decoder.layers.{at}", width, width, bias=False)
            at += 1
    yield from conv(f"decoder.layers.{at}", 3, width)


# ---- Files ---------------------------------------------------------------------------------------


def deviation_and_mean(name, shape):
    if name.endswith("embedding.weight"):
        return 0.02, 0.0
    if len(shape) >= 2:
        inputs = 1
        for size in shape[1:]:
            inputs *= size
        return inputs ** -0.5, 0.0
    return (0.1, 1.0) if name.endswith("weight") else (0.05, 0.0)


def write_weights(path, shapes, drawn):
    """A safetensors file; drawn holds BLOCK normal numbers."""
    header, offset = {}, 0
    for name, shape in shapes:
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64 + 56)  # data begins at a multiple of 64
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = {}
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for place, (name, entry) in enumerate(header.items()):
            key = deviation_and_mean(name, entry["shape"])
            if key not in blocks:
                numbers = struct.pack(f"<{BLOCK}e", *(key[0] * x + key[1] for x in drawn))
                blocks[key] = numbers * REPEATS
            left, block = entry["data_offsets"][1] - entry["data_offsets"][0], blocks[key]
            begin = 2 * (place * STRIDE % BLOCK)  # no two layers are alike
            while left > 0:
                left -= file.write(memoryview(block)[begin:begin + left])
                begin = 0


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_tokenizer(folder, pad):
    """CLIP's own vocabulary, from the merges that the engine carries."""
    merges = (TREE / "worker/models/clip/merges.txt").read_text().split("\n")[1:]
    merges = [line for line in merges if line]
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(68)]
    tokens = characters + [f"{character}</w>" for character in characters]
    tokens += ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    source = TREE / "tests/golden/tiny-sdxl" / pad
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)


def write_model(folder, pipeline, unet, texts, drawn):
    index = {"_class_name": pipeline, "scheduler": ["diffusers", EULER["_class_name"]],
             "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    write_json(folder / "scheduler/scheduler_config.json", EULER)
    for i, config in enumerate(texts):
        suffix = "_2" if i > 0 else ""
        classes = ("CLIPTextModel", "CLIPTextModelWithProjection")
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
        index[f"text_encoder{suffix}"] = ["transformers", classes[i]]
        write_tokenizer(folder / f"tokenizer{suffix}", f"tokenizer{suffix}")
        write_json(folder / f"text_encoder{suffix}/config.json", config)
        write_weights(folder / f"text_encoder{suffix}/model.safetensors",
                      clip_weights(config, i > 0), drawn)
    for name, config, shapes in (("unet", unet, unet_weights(unet)),
                                 ("vae", VAE, vae_weights(VAE))):
        write_json(folder / name / "config.json", config)
        write_weights(folder / name / "diffusion_pytorch_model.safetensors", shapes, drawn)
    write_json(folder / "model_index.json", index)


def write_sd15(folder, drawn):
    write_model(folder, "StableDiffusionPipeline", UNET_SD, [CLIP_L], drawn)


def write_sdxl(folder, drawn):
    write_model(folder, "StableDiffusionXLPipeline", UNET_XL, [CLIP_L, OPENCLIP_G], drawn)


def write_taesd(folder, drawn):
    write_json(folder / "config.json", TAESD)
    write_weights(folder / "diffusion_pytorch_model.safetensors", taesd_weights(TAESD), drawn)


def write_turbo(folder, _drawn):
    """SDXL-Turbo has SDXL's shapes, and TAESD is put in place of the large VAE."""
    base, vae = path_of("sdxl"), path_of("taesd")
    folder.mkdir()
    for part in base.iterdir():
        if part.name not in ("vae", "model_index.json"):
            (folder / part.name).symlink_to(os.path.relpath(part, folder))
    (folder / "vae").symlink_to(os.path.relpath(vae, folder))
    index = json.loads((base / "model_index.json").read_text())
    write_json(folder / "model_index.json", index | {"vae": ["diffusers", "AutoencoderTiny"]})


WRITERS = {"sd15": write_sd15, "sdxl": write_sdxl, "taesd": write_taesd, "turbo": write_turbo}
GIGABYTES = {"sd15": 2.2, "sdxl": 7.0, "taesd": 0.1, "turbo": 0.0}


def path_of(name):
    """The model's folder, made if it is not there."""
    folder = MODELS / name
    if folder.exists():
        return folder
    MODELS.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(MODELS).free * 1e-9
    if free < GIGABYTES[name] + 1:
        raise SystemExit(f"{MODELS}: {name} takes {GIGABYTES[name]} GB, {free:.1f} are free")
    if GIGABYTES[name] > 1:
        print(f"writing {folder}: {GIGABYTES[name]} GB, kept for later runs", file=sys.stderr)
    half_done = MODELS / f"{name}.new"
    shutil.rmtree(half_done, ignore_errors=True)
    draw = random.Random(7)
    WRITERS[name](half_done, [draw.gauss(0, 1) for _ in range(BLOCK)])
    half_done.rename(folder)
    return folder


if __name__ == "__main__":
    if not sys.argv[1:] or any(name not in WRITERS for name in sys.argv[1:]):
        raise SystemExit(__doc__)
    for model in sys.argv[1:]:
        print(path_of(model))
