"""Single-file checkpoints of tiny models: which tensors they have, and the pictures that diffusers
draws with the same weights from a folder.

Weights are not stored. Each follows from its name (see fill), here and in checkpoint_file.h, so a
fixture is a list of names and shapes, although the vocabulary has its real 49,408 tokens.

The names are those of the original code (CompVis latent diffusion, Stability generative-models),
given here by walking diffusers' modules. They are checked when this runs: diffusers' own
from_single_file must find every weight of the folder in the file, bit for bit.
"""

import json
import pathlib
import tempfile

import numpy
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler,
                       StableDiffusionPipeline,
                       StableDiffusionXLPipeline, UNet2DConditionModel)
from safetensors.torch import save_file
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection,
                          CLIPTokenizer)

PROMPT = "a flaming obsidian sword, 8k!"
NEGATIVE = "blurry"
SEED, STEPS, SIDE = 7, 3, 64
VOCABULARY = 49408
MERGES = pathlib.Path(__file__).resolve().parents[2] / "worker/models/clip/merges.txt"

BETAS = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
         "num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False,
         "clip_sample": False, "skip_prk_steps": True}

# ---- Weights ---------------------------------------------------------------------------------


def fill(name, shape, exponent, base):
    """base + i / 64 * 2^exponent with i from -63 to 64, a hash of name and position: exact in
    float16. FNV-1a of the name, then splitmix64."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    count = int(numpy.prod(shape, dtype=numpy.int64))
    with numpy.errstate(over="ignore"):
        x = numpy.uint64(seed) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(
            0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x = x ^ (x >> numpy.uint64(31))
    whole = (x >> numpy.uint64(57)).astype(numpy.float64) - 63
    values = base + whole / 64 * 2.0**exponent
    return torch.from_numpy(values.astype(numpy.float32)).reshape(shape)


def recipe(name, shape, spread):
    """[shape, exponent, base] of a tensor: activations stay near one, nothing is left at a value
    that hides a mistake. spread: the exponent of biases."""
    if "embedding" in name and "time" not in name and "label" not in name:
        return [shape, -1, 0.0]
    if len(shape) >= 2:
        fan_in = shape[0] if name.endswith("text_projection") else int(numpy.prod(shape[1:]))
        return [shape, -int(round(numpy.log2(0.577 * fan_in**0.5))), 0.0]
    return [shape, -2, 1.0] if name.endswith("weight") else [shape, spread, 0.0]

# ---- The original names ----------------------------------------------------------------------


RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
          "conv_shortcut": "skip_connection"}


def unet_modules(unet):
    """(diffusers' module, the original's), longest first."""
    pairs = [("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
             ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
             ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2")]

    def layer(block, i, place):
        pairs.extend((f"{block}.resnets.{i}.{new}", f"{place}.0.{old}")
                     for new, old in RESNET.items())
        pairs.append((f"{block}.attentions.{i}", f"{place}.1"))

    row = 1
    for b, block in enumerate(unet.down_blocks):
        for i in range(len(block.resnets)):
            layer(f"down_blocks.{b}", i, f"input_blocks.{row}")
            row += 1
        if block.downsamplers:
            pairs.append((f"down_blocks.{b}.downsamplers.0.conv", f"input_blocks.{row}.0.op"))
            row += 1
    pairs.extend((f"mid_block.resnets.{i}.{new}", f"middle_block.{2 * i}.{old}")
                 for i in range(2) for new, old in RESNET.items())
    pairs.append(("mid_block.attentions.0", "middle_block.1"))
    row = 0
    for b, block in enumerate(unet.up_blocks):
        for i in range(len(block.resnets)):
            layer(f"up_blocks.{b}", i, f"output_blocks.{row}")
            row += 1
        if block.upsamplers:
            part = 2 if getattr(block, "attentions", None) else 1
            pairs.append((f"up_blocks.{b}.upsamplers.0.conv", f"output_blocks.{row - 1}.{part}.conv"))
    return {new: "model.diffusion_model." + old for new, old in pairs}


def vae_modules(vae):
    pairs = [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv")]
    levels = len(vae.config.block_out_channels)
    for side, way in (("encoder", "down"), ("decoder", "up")):
        pairs += [(f"{side}.conv_in", f"{side}.conv_in"), (f"{side}.conv_out", f"{side}.conv_out"),
                  (f"{side}.conv_norm_out", f"{side}.norm_out")]
        for b in range(levels):
            level = b if side == "encoder" else levels - 1 - b
            for i in range(3):
                for name in ("norm1", "conv1", "norm2", "conv2"):
                    pairs.append((f"{side}.{way}_blocks.{b}.resnets.{i}.{name}",
                                  f"{side}.{way}.{level}.block.{i}.{name}"))
                pairs.append((f"{side}.{way}_blocks.{b}.resnets.{i}.conv_shortcut",
                              f"{side}.{way}.{level}.block.{i}.nin_shortcut"))
            pairs.append((f"{side}.{way}_blocks.{b}.{way}samplers.0.conv",
                          f"{side}.{way}.{level}.{way}sample.conv"))
        for i in range(2):
            for name in ("norm1", "conv1", "norm2", "conv2"):
                pairs.append((f"{side}.mid_block.resnets.{i}.{name}",
                              f"{side}.mid.block_{i + 1}.{name}"))
        for new, old in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
                         ("to_out.0", "proj_out")):
            pairs.append((f"{side}.mid_block.attentions.0.{new}", f"{side}.mid.attn_1.{old}"))
    return {new: "first_stage_model." + old for new, old in pairs}


def by_module(modules, key):
    module = key
    while module not in modules:
        module = module[:module.rindex(".")]
    return modules[module] + key[len(module):]


OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
             "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def text_place(key, prefix, open_clip):
    """(original name, what it holds of it): None, "transposed", or the number of a third."""
    key = key.removeprefix("text_model.")
    if not open_clip:
        return prefix + "text_model." + key, None
    if key == "text_projection.weight":
        return prefix + "text_projection", "transposed"
    if key == "embeddings.position_embedding.weight":
        return prefix + "positional_embedding", None
    if key.startswith("encoder.layers."):
        layer, name = key.removeprefix("encoder.layers.").split(".", 1)
        place = f"{prefix}transformer.resblocks.{layer}."
        for i, letter in enumerate("qkv"):
            if name.startswith(f"self_attn.{letter}_proj."):
                return place + "attn.in_proj_" + name.rsplit(".", 1)[1], i
        for new, old in OPEN_CLIP.items():
            if name.startswith(new + "."):
                return place + old + name.removeprefix(new), None
    return prefix + key.replace("embeddings.", "").replace("final_layer_norm", "ln_final"), None


def places(pipe, texts):
    """Every weight of the pipeline: {(component, key): (original name, form)}."""
    found = {}
    unet, vae = unet_modules(pipe.unet), vae_modules(pipe.vae)
    for key in pipe.unet.state_dict():
        found["unet", key] = by_module(unet, key), None
    for key, value in pipe.vae.state_dict().items():
        pointwise = ".attentions.0." in key and value.dim() == 2
        found["vae", key] = by_module(vae, key), "pointwise" if pointwise else None
    for component, (prefix, open_clip) in texts.items():
        for key in getattr(pipe, component).state_dict():
            if not key.endswith("position_ids"):
                found[component, key] = text_place(key, prefix, open_clip)
    return found


def original_shape(shape, form):
    if form == "transposed":
        return shape[::-1]
    if form == "pointwise":
        return shape + [1, 1]
    return [3 * shape[0]] + shape[1:] if isinstance(form, int) else shape


def taken(original, form):
    """The folder's tensor out of the file's."""
    if form == "transposed":
        return original.T.contiguous()
    if form == "pointwise":
        return original[:, :, 0, 0]
    return original.chunk(3)[form] if isinstance(form, int) else original

# ---- Models ----------------------------------------------------------------------------------


def text_config(width, **options):
    return CLIPTextConfig(**{
        "vocab_size": VOCABULARY, "max_position_embeddings": 77, "bos_token_id": 49406,
        "pad_token_id": 1, "eos_token_id": 2, "hidden_size": width, "intermediate_size": 2 * width,
        "num_hidden_layers": 2, "num_attention_heads": width // 64, "hidden_act": "quick_gelu",
        "projection_dim": width} | options)


def unet_model(**options):
    return UNet2DConditionModel(**{
        "sample_size": 64, "block_out_channels": (32, 64), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 64,
        "attention_head_dim": 8} | options)


def vae_model(**options):
    return AutoencoderKL(**{
        "block_out_channels": (32, 32, 32, 32), "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 1} | options)


def tokenizer(pad):
    """The packaged vocabulary as the folder that CLIP's repository has."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(i) for i in printable] + [chr(256 + i) for i in range(len(others))]
    merges = MERGES.read_text(encoding="utf-8").split("\n")[1:-1]
    tokens = (letters + [letter + "</w>" for letter in letters] +
              [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"])
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
        (root / "merges.txt").write_text(MERGES.read_text(encoding="utf-8"), encoding="utf-8")
        (root / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}))
        (root / "special_tokens_map.json").write_text(json.dumps({
            "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>", "pad_token": pad}))
        return CLIPTokenizer.from_pretrained(root)


CLIP_L, OPEN_H = ("cond_stage_model.transformer.", False), ("cond_stage_model.model.", True)
UNUSED = {"alphas_cumprod": [1000], "model_ema.decay": [], "model_ema.num_updates": []}
SD2_UNET = {"block_out_channels": (64, 128), "attention_head_dim": (1, 2),
            "cross_attention_dim": 128, "use_linear_projection": True}


def sd1(**options):
    return StableDiffusionPipeline(
        vae=vae_model(), text_encoder=CLIPTextModel(text_config(64)),
        tokenizer=tokenizer("<|endoftext|>"), unet=unet_model(**options),
        scheduler=PNDMScheduler.from_config(BETAS), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)


def sd2(prediction, size):
    scheduler = DDIMScheduler if prediction == "v_prediction" else PNDMScheduler
    return StableDiffusionPipeline(
        vae=vae_model(), text_encoder=CLIPTextModel(text_config(
            128, num_hidden_layers=23, hidden_act="gelu")),
        tokenizer=tokenizer("!"), unet=unet_model(**SD2_UNET, sample_size=size),
        scheduler=scheduler.from_config(BETAS | {"prediction_type": prediction}),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def sdxl(**options):
    wide = {"sample_size": 128, "cross_attention_dim": 192, "use_linear_projection": True,
            "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 128 + 6 * 8, "attention_head_dim": (1, 2),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": 2,
            "transformer_layers_per_block": (1, 2), "block_out_channels": (64, 128)}
    return StableDiffusionXLPipeline(
        vae=vae_model(scaling_factor=0.13025), text_encoder=CLIPTextModel(text_config(64)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(
            128, num_hidden_layers=3, hidden_act="gelu")),
        tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"),
        unet=unet_model(**(wide | options)), add_watermarker=False,
        scheduler=EulerDiscreteScheduler.from_config(BETAS | {"timestep_spacing": "leading"}))


SDXL_TEXTS = {"text_encoder": ("conditioner.embedders.0.transformer.", False),
              "text_encoder_2": ("conditioner.embedders.1.model.", True)}
# What an SD 2 file has beside: the last layer, which is not used, and OpenCLIP's own.
SD2_UNUSED = UNUSED | {"cond_stage_model.model.logit_scale": [],
                       "cond_stage_model.model.text_projection": [128, 128],
                       "cond_stage_model.model.transformer.resblocks.23.ln_1.weight": [128],
                       "cond_stage_model.model.transformer.resblocks.23.attn.in_proj_bias": [384]}
# name: (pipeline, text encoders, other tensors, exponent of biases, type, what we find in the file)
KINDS = {
    "sd1": (sd1, {"text_encoder": CLIP_L}, UNUSED, -3, "F16",
            {"scheduler": "pndm", "side": 512}),
    "sd2-base": (lambda: sd2("epsilon", 64), {"text_encoder": OPEN_H}, SD2_UNUSED, -4, "F32",
                 {"scheduler": "pndm", "side": 512}),
    "sd2-v": (lambda: sd2("v_prediction", 96), {"text_encoder": OPEN_H}, SD2_UNUSED, -2, "F32",
              {"scheduler": "ddim", "side": 768}),
    "sdxl": (sdxl, SDXL_TEXTS, UNUSED | {"conditioner.embedders.1.model.logit_scale": []}, -3,
             "F32", {"scheduler": "euler", "side": 1024}),
    # Layers of one block differ in depth, as SSD-1B has it.
    "sdxl-distilled": (lambda: sdxl(transformer_layers_per_block=(1, (2, 2)),
                                    reverse_transformer_layers_per_block=((3, 1, 1), 1)),
                       SDXL_TEXTS, UNUSED, -3, "F16", {"scheduler": "euler", "side": 1024}),
}

# ---- Pictures --------------------------------------------------------------------------------


def tensors_of(pipe, texts, unused, spread):
    """{original name: [shape, exponent, base]} of a file with this pipeline."""
    tensors = {}
    for (component, key), (name, form) in places(pipe, texts).items():
        shape = list(getattr(pipe, component).state_dict()[key].shape)
        tensors[name] = recipe(name, original_shape(shape, form), spread)
    tensors.update({name: recipe(name, shape, spread) for name, shape in unused.items()})
    return tensors


def load_weights(pipe, texts, tensors):
    for component in {component for component, _ in places(pipe, texts)}:
        state = {key: taken(fill(name, *tensors[name]), form)
                 for (owner, key), (name, form) in places(pipe, texts).items()
                 if owner == component}
        missing = getattr(pipe, component).load_state_dict(state, strict=False).missing_keys
        assert all(key.endswith("position_ids") for key in missing), missing
        getattr(pipe, component).eval()


def check_with_diffusers(pipe, tensors):
    """from_single_file finds the same weights in the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.safetensors"
        pipe.save_pretrained(f"{folder}/pipeline")
        save_file({name: fill(name, *rest) for name, rest in tensors.items()}, path)
        other = type(pipe).from_single_file(path, config=f"{folder}/pipeline", local_files_only=True)
        for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
            if getattr(pipe, component, None) is None:
                continue
            ours = getattr(pipe, component).state_dict()
            theirs = getattr(other, component).state_dict()
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                assert torch.equal(value, theirs[key].to(value.dtype)), (component, key)


def to_rgb(image):
    pixels = (image / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    return torch.from_numpy((pixels * 255).round().astype("uint8"))


def run(pipe, guidance):
    pipe.set_progress_bar_config(disable=True)
    out = {}

    def on_step(pipe, i, timestep, tensors):
        out[f"latents.{i}"] = tensors["latents"].clone()
        return {}

    xl = isinstance(pipe, StableDiffusionXLPipeline)
    embeds = pipe.encode_prompt(PROMPT, device="cpu", num_images_per_prompt=1,
                                do_classifier_free_guidance=True, negative_prompt=NEGATIVE)
    names = ["prompt_embeds", "negative_prompt_embeds"] + [
        "pooled_prompt_embeds", "negative_pooled_prompt_embeds"] * xl
    out.update({name: value.clone() for name, value in zip(names, embeds)})
    latents = pipe(prompt=PROMPT, negative_prompt=NEGATIVE, width=SIDE, height=SIDE,
                   num_inference_steps=STEPS, guidance_scale=guidance,
                   generator=torch.Generator("cpu").manual_seed(SEED), output_type="latent",
                   callback_on_step_end=on_step).images
    image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
    out["image"] = image
    out["rgb"] = to_rgb(image)
    return {name: tensor.contiguous() for name, tensor in out.items()}


def write_fixture(path, content):
    """JSON with a tensor a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()
             if key != "tensors"]
    tensors = ",\n".join(f"    {json.dumps(name)}: {json.dumps(rest)}"
                         for name, rest in sorted(content["tensors"].items()))
    path.write_text("{\n" + ",\n".join(lines) + ',\n  "tensors": {\n' + tensors + "\n  }\n}\n")


def make(root):
    folder = root / "checkpoints"
    folder.mkdir(exist_ok=True)
    for name, (build, texts, unused, spread, dtype, found) in KINDS.items():
        torch.manual_seed(0)
        pipe = build()
        tensors = tensors_of(pipe, texts, unused, spread)
        load_weights(pipe, texts, tensors)
        check_with_diffusers(pipe, tensors)
        # How a file is read does not depend on the sampler; DDIM is the plainest.
        if isinstance(pipe.scheduler, PNDMScheduler):
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        guidance = 5.0
        with torch.no_grad():
            save_file(run(pipe, guidance), folder / f"{name}.safetensors")
        content = {"type": dtype, "prompt": PROMPT, "negative_prompt": NEGATIVE, "width": SIDE,
                   "height": SIDE, "steps": STEPS, "seed": SEED, "guidance": guidance,
                   "scheduler": "euler" if isinstance(pipe.scheduler, EulerDiscreteScheduler)
                   else "ddim", "default_scheduler": found["scheduler"],
                   "default_side": found["side"],
                   "tensors": tensors}
        write_fixture(folder / f"{name}.json", content)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(pathlib.Path(__file__).resolve().parent)
