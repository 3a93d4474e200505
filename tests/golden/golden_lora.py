"""Small LoRA files for tiny-sdxl in every format that people have, and the pictures that diffusers
makes with them: adapters beside the layers (PEFT, nothing fused).

The tensors are random; which layer of the UNet a key means is diffusers' word: load_lora_weights
reads the files, and what it put where is compared with what was written. Two things it loses are put
back before the run: alphas that differ from layer to layer (diffusers 0.42.1 makes patterns of them
that PEFT does not find), and text_encoder_2 (transformers 5.23 initialises its layers anew).
"tucker" (LyCORIS' lora_mid), which diffusers does not read at all, is fused into the weights here,
from its definition.
"""

import json
import re

import torch
from safetensors.torch import save_file

import golden_pipeline

STEPS = 2
SIZE = "odd"

# Every kind of layer: attention, feed-forward, projections, 3x3 convolutions with stride 1 and 2,
# a shortcut, the embeddings, the first and the last convolution.
LOCON = (r"(attn\d\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out|resnets\.\d\.conv[12]|"
         r"conv_shortcut|time_emb_proj|samplers\.0\.conv|(time|add)_embedding\.linear_[12]|"
         r"^conv_(in|out))$")
TRANSFORMERS = r"(attn\d\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out)$"
ATTENTION = r"attn\d\.to_(q|k|v|out\.0)$"
TEXT = r"self_attn\.(q|k|v|out)_proj$|mlp\.fc[12]$"
TEXT_ATTENTION = r"self_attn\.(q|k|v|out)_proj$"

# name -> list of (file, weight of the UNet, weight of the text encoders)
CASES = {
    "kohya-original": [("kohya-original", 0.8, 0.8)],
    "kohya": [("kohya", 1.0, 1.0)],
    "peft": [("peft", -0.5, -0.5)],
    "diffusers": [("diffusers", 1.0, 1.0)],
    "processors": [("processors", 0.9, 0.9)],
    "tucker": [("tucker", 0.7, 0.7)],
    "two": [("kohya-original", 0.6, 0.6), ("peft", 0.9, 0.9)],
    "parts": [("kohya", 0.7, 0.3), ("diffusers", -0.4, 0.0)],
}


def modules(model, pattern):
    """The layers whose names match, without CLIP's prefix, which only some folders have."""
    found = {}
    for name, module in model.named_modules():
        if re.search(pattern, name) and hasattr(module, "weight"):
            found[name.removeprefix("text_model.")] = module
    return found


def matrices(module, rank, generator):
    """Down and up for a layer, large enough to change the picture."""
    weight = module.weight
    down_shape = (rank,) + tuple(weight.shape[1:])
    up_shape = (weight.shape[0], rank) + (1,) * (weight.dim() - 2)
    fan_in = weight[0].numel()
    down = torch.randn(down_shape, generator=generator) / fan_in**0.5
    return down, 0.5 * torch.randn(up_shape, generator=generator) / rank**0.5


def original_name(name):
    """diffusers' name of a UNet layer in Stability's numbering, for two layers a block."""
    singles = {"conv_in": "input_blocks.0.0", "conv_out": "out.2",
               "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
               "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    inner = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
             "conv_shortcut": "skip_connection"}
    if name in singles:
        return singles[name]
    parts = name.split(".")
    if parts[0] == "mid_block":
        kind, layer, rest = parts[1], int(parts[2]), ".".join(parts[3:])
        number = 1 if kind == "attentions" else 2 * layer
        return f"middle_block.{number}." + (rest if kind == "attentions" else inner[rest])
    side, block, kind, layer = parts[0], int(parts[1]), parts[2], int(parts[3])
    rest = ".".join(parts[4:])
    rest = rest if kind == "attentions" else inner.get(rest)
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.2.conv"
    number = 3 * block + layer
    side, number = ("input_blocks", number + 1) if side == "down_blocks" else ("output_blocks",
                                                                              number)
    return f"{side}.{number}.{1 if kind == 'attentions' else 0}.{rest}"


def draw(pipeline, patterns, rank, dtype, seed, alpha=None):
    """part -> layer -> (down, up, alpha). alpha: of the i-th layer; None: the rank."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for part, pattern in patterns.items():
        layers[part] = {}
        for i, (name, module) in enumerate(modules(getattr(pipeline, part), pattern).items()):
            down, up = matrices(module, rank, generator)
            layers[part][name] = (down.to(dtype), up.to(dtype), alpha(i) if alpha else float(rank))
    return layers


def kohya_keys(layers, rename):
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    tensors = {}
    for part, name, down, up, alpha in each(layers):
        name = rename(name) if part == "unet" else "text_model." + name
        key = prefixes[part] + name.replace(".", "_")
        tensors[key + ".lora_down.weight"] = down
        tensors[key + ".lora_up.weight"] = up
        tensors[key + ".alpha"] = torch.tensor(alpha, dtype=down.dtype)
    return tensors


def diffusers_keys(layers):
    """diffusers' names from before PEFT; without alphas."""
    tensors = {}
    for part, name, down, up, _ in each(layers):
        key = (f"unet.{name}.lora" if part == "unet" else
               f"{part}.text_model.{name}.lora_linear_layer")
        tensors[f"{key}.down.weight"] = down
        tensors[f"{key}.up.weight"] = up
    return tensors


def processor_keys(layers):
    """The names of the attention processors, which the first LoRA training scripts wrote."""
    tensors = {}
    for _, name, down, up, _ in each(layers):
        layer, last = name.removesuffix(".0").rsplit(".", 1)
        tensors[f"unet.{layer}.processor.{last}_lora.down.weight"] = down
        tensors[f"unet.{layer}.processor.{last}_lora.up.weight"] = up
    return tensors


def save_peft(pipeline, layers, path):
    """What diffusers saves today: PEFT's names, and lora_alpha in the metadata."""
    states = {part: {} for part in layers}
    options = {}
    for part, name, down, up, alpha in each(layers):
        key = name if part == "unet" else f"text_model.{name}"
        states[part][f"{key}.lora_A.weight"] = down
        states[part][f"{key}.lora_B.weight"] = up
        options.setdefault(part, {"r": down.shape[0], "lora_alpha": alpha, "target_modules": []})
        options[part]["target_modules"].append(name)
    type(pipeline).save_lora_weights(
        path.parent, weight_name=path.name, unet_lora_layers=states["unet"],
        text_encoder_lora_layers=states["text_encoder"],
        text_encoder_2_lora_layers=states["text_encoder_2"],
        **{f"{part}_lora_adapter_metadata": option for part, option in options.items()})


def each(layers):
    for part, named in layers.items():
        for name, (down, up, alpha) in named.items():
            yield part, name, down.contiguous(), up.contiguous(), alpha


def put_right(pipeline, adapter, layers):
    """The UNet's matrices are where they belong; alphas and text encoders are made so."""
    for part, name, down, up, alpha in each(layers):
        model = getattr(pipeline, part)
        module = (model if hasattr(model, "encoder") or part == "unet" else
                  model.text_model).get_submodule(name)
        for factor, value in ((module.lora_A[adapter], down), (module.lora_B[adapter], up)):
            if part == "unet":
                assert torch.equal(factor.weight, value.to(torch.float32)), (part, name)
            factor.weight.data.copy_(value)
        module.lora_alpha[adapter] = alpha
        assert module.r[adapter] == down.shape[0]


def tucker(pipeline, seed):
    """3x3 convolutions in three factors: (1x1 down, 3x3 mid, 1x1 up), as LyCORIS stores them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in modules(pipeline.unet, r"conv[12]$|samplers\.0\.conv$").items():
        weight = module.weight
        name = "lora_unet_" + name.replace(".", "_")
        down = torch.randn(3, weight.shape[1], 1, 1, generator=generator) / weight.shape[1]**0.5
        mid = torch.randn(3, 3, 3, 3, generator=generator) / 27**0.5
        up = torch.randn(weight.shape[0], 3, 1, 1, generator=generator) / 3**0.5
        tensors[name + ".lora_down.weight"] = down
        tensors[name + ".lora_mid.weight"] = mid
        tensors[name + ".lora_up.weight"] = up
        tensors[name + ".alpha"] = torch.tensor(2.0)
    return tensors


def fuse_tucker(pipeline, tensors, weight):
    for name, module in modules(pipeline.unet, r"conv[12]$|samplers\.0\.conv$").items():
        name = "lora_unet_" + name.replace(".", "_")
        down, mid, up = (tensors[f"{name}.lora_{factor}.weight"] for factor in ("down", "mid",
                                                                                "up"))
        change = torch.einsum("or,rsyx,si->oiyx", up[:, :, 0, 0], mid, down[:, :, 0, 0])
        module.weight.data += weight * 2.0 / 3.0 * change


def make_files(folder, model_folder):
    """Write the files; what is in them, by name."""
    pipeline = golden_pipeline.load(model_folder)
    folder.mkdir()
    both = {"text_encoder": TEXT, "text_encoder_2": TEXT}
    attention = {"text_encoder": TEXT_ATTENTION, "text_encoder_2": TEXT_ATTENTION}
    contents = {
        "kohya-original": draw(pipeline, {"unet": LOCON, **both}, 2, torch.float16, 1,
                               lambda i: float(i % 3 + 1)),
        "kohya": draw(pipeline, {"unet": TRANSFORMERS, **both}, 3, torch.bfloat16, 2,
                      lambda i: 2.0),
        "peft": draw(pipeline, {"unet": r"\.(conv1|conv_shortcut|to_q|to_v)$",
                                "text_encoder": r"\.(fc1|q_proj|v_proj)$",
                                "text_encoder_2": r"\.out_proj$"}, 2, torch.float32, 3,
                     lambda i: 3.0),
        "diffusers": draw(pipeline, {"unet": TRANSFORMERS, **attention}, 2, torch.float32, 4),
        "processors": draw(pipeline, {"unet": ATTENTION}, 2, torch.float32, 5),
        "tucker": tucker(pipeline, 6),
    }
    files = {
        "kohya-original": kohya_keys(contents["kohya-original"], original_name),
        "kohya": kohya_keys(contents["kohya"], str),
        "diffusers": diffusers_keys(contents["diffusers"]),
        "processors": processor_keys(contents["processors"]),
        "tucker": contents["tucker"],
    }
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    save_peft(pipeline, contents["peft"], folder / "peft.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    return contents


def apply(pipeline, folder, uses, contents):
    names, weights = [], []
    for name, unet, text in uses:
        if name == "tucker":
            fuse_tucker(pipeline, contents["tucker"], unet)
            continue
        pipeline.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
        put_right(pipeline, name, contents[name])
        names.append(name)
        weights.append({"unet": unet, "text_encoder": text, "text_encoder_2": text})
    if names:
        pipeline.set_adapters(names, adapter_weights=weights)


def make(root, model_folder):
    """The files in root/loras and what diffusers makes of them in root/expected."""
    folder = root / "loras"
    contents = make_files(folder, model_folder)
    settings = {}
    width, height = golden_pipeline.SIZES[SIZE]
    for name, uses in CASES.items():
        pipeline = golden_pipeline.load(model_folder)
        apply(pipeline, folder, uses, contents)
        with torch.no_grad():
            tensors = golden_pipeline.run(pipeline, "euler", SIZE, True,
                                          golden_pipeline.NEGATIVE, steps=STEPS)
        tensors = {key: tensor.contiguous() for key, tensor in tensors.items() if key != "image"}
        path = root / "expected" / f"lora.{name}.safetensors"
        save_file(tensors, path)
        path.chmod(0o644)
        settings[name] = {
            "prompt": golden_pipeline.PROMPT, "negative_prompt": golden_pipeline.NEGATIVE,
            "width": width, "height": height, "steps": STEPS, "seed": golden_pipeline.SEED,
            "scheduler": "euler", "guidance": golden_pipeline.GUIDANCE,
            "loras": [{"name": use[0], "weight": use[1], "text_weight": use[2]} for use in uses]}
    text = json.dumps(settings, indent=2)
    (root / "expected" / "loras.json").write_text(text + "\n")
