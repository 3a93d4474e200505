"""The model kinds: folders as the published models have them, with the keys that their configs have
and the structure that makes each of them special, only narrow: blocks of 8, 12 and 16 channels,
latents of 8 by 8. Kinds of one architecture share its weights through symbolic links.

Every weight is a number that float16 and bfloat16 both hold exactly, so that one result is expected
whatever the engine stores them in.
"""

import json
import os
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

ROOT = pathlib.Path(__file__).resolve().parent
GOLDEN = ROOT.parent / "golden"
VOCABULARY = len(json.loads((GOLDEN / "tiny-sdxl/tokenizer/vocab.json").read_text()))

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP_CROSS, UP_PLAIN = "CrossAttnUpBlock2D", "UpBlock2D"

# ---- UNets: the keys are those of the published config.json --------------------------------------

UNET_COMMON = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "center_input_sample": False,
    "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4,
    "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 4,
    "out_channels": 4, "sample_size": 8,
}
UNET_SD = UNET_COMMON | {
    "_diffusers_version": "0.6.0", "attention_head_dim": 2, "block_out_channels": [8, 12, 16, 16],
    "cross_attention_dim": 24, "down_block_types": [CROSS, CROSS, CROSS, PLAIN],
    "up_block_types": [UP_PLAIN, UP_CROSS, UP_CROSS, UP_CROSS],
}
# Linear projections, a number of heads for each block, OpenCLIP's width.
UNET_SD2 = UNET_SD | {
    "_diffusers_version": "0.10.0.dev0", "attention_head_dim": [1, 2, 4, 4],
    "cross_attention_dim": 32, "dual_cross_attention": False, "num_class_embeds": None,
    "only_cross_attention": False, "use_linear_projection": True,
}
UNET_SDXL = UNET_COMMON | {
    "_diffusers_version": "0.19.0.dev0", "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 8,
    "attention_head_dim": [1, 2, 4], "block_out_channels": [8, 12, 16], "class_embed_type": None,
    "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "cross_attention_dim": 56, "cross_attention_norm": None,
    "down_block_types": [PLAIN, CROSS, CROSS], "dual_cross_attention": False,
    "encoder_hid_dim": None, "encoder_hid_dim_type": None, "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "num_attention_heads": None,
    "num_class_embeds": None, "only_cross_attention": False,
    "projection_class_embeddings_input_dim": 24 + 6 * 8, "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False, "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None, "time_embedding_act_fn": None, "time_embedding_dim": None,
    "time_embedding_type": "positional", "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 3], "up_block_types": [UP_CROSS, UP_CROSS, UP_PLAIN],
    "upcast_attention": None, "use_linear_projection": True,
}
# Distilled SDXL: a mid block without attention, transformers of other depths in each layer and on
# the way up.
UNET_SSD_1B = UNET_SDXL | {
    "_diffusers_version": "0.22.0.dev0", "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": [1, [2, 2], [2, 2]],
    "reverse_transformer_layers_per_block": [[2, 2, 3], [2, 1, 1], 1],
    "attention_type": "default", "dropout": 0.0,
}
UNET_VEGA = UNET_SSD_1B | {
    "transformer_layers_per_block": [1, [1, 1], [2, 2]],
    "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
}
# Distilled SD: one layer a block and no mid block; the tiny one also lost its innermost stage.
UNET_SMALL_SD = UNET_SD | {
    "_diffusers_version": "0.18.0.dev0", "layers_per_block": 1, "mid_block_type": None,
    "transformer_layers_per_block": 1, "use_linear_projection": False,
}
UNET_TINY_SD = UNET_SMALL_SD | {
    "block_out_channels": [8, 12, 16], "down_block_types": [CROSS, CROSS, CROSS],
    "up_block_types": [UP_CROSS, UP_CROSS, UP_CROSS],
}
UNETS = {
    "sd": UNET_SD,
    "sd2": UNET_SD2,
    "sdxl": UNET_SDXL,
    "ssd-1b": UNET_SSD_1B,
    "vega": UNET_VEGA,
    "small-sd": UNET_SMALL_SD,
    "tiny-sd": UNET_TINY_SD,
}

# ---- Text encoders and VAEs ----------------------------------------------------------------------

TEXT_COMMON = {
    "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2, "initializer_factor": 1.0,
    "initializer_range": 0.02, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
    "model_type": "clip_text_model", "num_hidden_layers": 3, "pad_token_id": 1,
    "vocab_size": VOCABULARY,
}
# name: (with a projection, config)
TEXTS = {
    "clip-l": (False, TEXT_COMMON | {
        "architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu", "hidden_size": 24,
        "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 24}),
    # SD 2.x: the penultimate layer is the last one of its file.
    "openclip-h": (False, TEXT_COMMON | {
        "architectures": ["CLIPTextModel"], "hidden_act": "gelu", "hidden_size": 32,
        "intermediate_size": 40, "num_attention_heads": 4, "projection_dim": 16}),
    "openclip-g": (True, TEXT_COMMON | {
        "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "hidden_size": 32,
        "intermediate_size": 40, "num_attention_heads": 2, "projection_dim": 24}),
}

VAE_SD = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
    "block_out_channels": [4, 8, 8, 8], "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 2,
    "out_channels": 3, "sample_size": 64, "up_block_types": ["UpDecoderBlock2D"] * 4,
}
VAE_SDXL = VAE_SD | {"_diffusers_version": "0.20.0.dev0", "force_upcast": True,
                     "scaling_factor": 0.13025}
TAESD = {
    "_class_name": "AutoencoderTiny", "_diffusers_version": "0.20.0.dev0", "act_fn": "relu",
    "block_out_channels": [8, 8, 8, 8], "decoder_block_out_channels": [8, 8, 8, 8],
    "encoder_block_out_channels": [8, 8, 8, 8], "force_upcast": False, "in_channels": 3,
    "latent_channels": 4, "latent_magnitude": 3, "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1], "num_encoder_blocks": [1, 3, 3, 3], "out_channels": 3,
    "scaling_factor": 1.0, "upsampling_scaling_factor": 2,
}
VAES = {"kl": VAE_SD, "taesd": TAESD, "taesdxl": TAESD}

# ---- Schedulers: scheduler_config.json as published ----------------------------------------------

BETAS = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
         "num_train_timesteps": 1000, "trained_betas": None}
PNDM = BETAS | {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0",
                "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True,
                "steps_offset": 1}
DDIM_V = BETAS | {"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0",
                  "clip_sample": False, "prediction_type": "v_prediction",
                  "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
EULER = BETAS | {"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0",
                 "clip_sample": False, "interpolation_type": "linear",
                 "prediction_type": "epsilon", "sample_max_value": 1.0,
                 "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
                 "timestep_spacing": "leading", "use_karras_sigmas": False}
EULER_TRAILING = EULER | {"timestep_spacing": "trailing"}
ANCESTRAL_TRAILING = EULER_TRAILING | {"_class_name": "EulerAncestralDiscreteScheduler"}
LCM = BETAS | {"_class_name": "LCMScheduler", "_diffusers_version": "0.22.0.dev0",
               "clip_sample": False, "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
               "original_inference_steps": 50, "prediction_type": "epsilon",
               "rescale_betas_zero_snr": False, "sample_max_value": 1.0,
               "set_alpha_to_one": True, "steps_offset": 1, "thresholding": False,
               "timestep_scaling": 10.0, "timestep_spacing": "leading"}
TCD = LCM | {"_class_name": "TCDScheduler", "_diffusers_version": "0.27.0",
             "set_alpha_to_one": False}
DPM = BETAS | {"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.18.0.dev0",
               "algorithm_type": "dpmsolver++", "clip_sample": False,
               "dynamic_thresholding_ratio": 0.995, "lambda_min_clipped": float("-inf"),
               "lower_order_final": True, "prediction_type": "epsilon", "sample_max_value": 1.0,
               "set_alpha_to_one": False, "skip_prk_steps": True, "solver_order": 2,
               "solver_type": "midpoint", "steps_offset": 1, "thresholding": False,
               "timestep_spacing": "leading", "use_karras_sigmas": False, "variance_type": None}
del DPM["lambda_min_clipped"]  # -Infinity is no JSON; it is the default

# ---- Kinds ---------------------------------------------------------------------------------------


def sd(**changes):
    return {"pipeline": "StableDiffusionPipeline", "texts": ["clip-l"], "unet": ("sd", {}),
            "vae": ("kl", {}), "scheduler": PNDM, "guidance": 7.5, "seed": 1234} | changes


def sdxl(**changes):
    return {"pipeline": "StableDiffusionXLPipeline", "texts": ["clip-l", "openclip-g"],
            "unet": ("sdxl", {}), "vae": ("kl", VAE_SDXL), "scheduler": EULER,
            "guidance": 5.0, "seed": 1234} | changes


V21 = {"_diffusers_version": "0.10.0.dev0", "sample_size": 12, "upcast_attention": True}
# Random weights can make a model whose float32 pictures move by 1e-4 when a weight moves by 1e-7. A
# kind that does so takes another seed or less guidance: what is compared has to be defined.
KINDS = {
    "sd14": sd(scheduler=PNDM | {"_diffusers_version": "0.7.0.dev0"}),
    "sd15": sd(),
    "sd20-base": sd(texts=["openclip-h"], unet=("sd2", {}),
                    scheduler=PNDM | {"prediction_type": "epsilon"}),
    "sd21": sd(texts=["openclip-h"], unet=("sd2", V21), scheduler=DDIM_V),
    "sdxl": sdxl(),
    "sd-turbo": sd(texts=["openclip-h"], unet=("sd2", {"upcast_attention": None}),
                   scheduler=EULER_TRAILING, guidance=1.0),
    "sdxl-turbo": sdxl(scheduler=ANCESTRAL_TRAILING, guidance=1.0),
    "lcm": sd(unet=("lcm", {"time_cond_proj_dim": 16}), scheduler=LCM, guidance=8.5),
    "sdxl-lightning": sdxl(scheduler=EULER_TRAILING, guidance=1.0),
    "hyper-sd": sdxl(scheduler=TCD, guidance=1.0),
    "ssd-1b": sdxl(unet=("ssd-1b", {}), guidance=9.0),
    "segmind-vega": sdxl(unet=("vega", {}), guidance=9.0),
    "small-sd": sd(unet=("small-sd", {}), scheduler=DPM),
    "tiny-sd": sd(unet=("tiny-sd", {}), scheduler=DPM),
    "sd-inpaint": sd(pipeline="StableDiffusionInpaintPipeline",
                     unet=("sd-inpaint", {"in_channels": 9})),
    "sdxl-inpaint": sdxl(pipeline="StableDiffusionXLInpaintPipeline",
                         unet=("sdxl-inpaint", {"in_channels": 9}), guidance=3.0, seed=2),
    "vae-upcast": sd(vae=("kl", {"force_upcast": True, "_diffusers_version": "0.20.0"})),
    "vae-scaling": sd(vae=("kl", {"scaling_factor": 0.41})),
    "taesd": sd(vae=("taesd", {})),
    "taesdxl": sdxl(vae=("taesdxl", {})),
    # One file with the original names, as tests/golden/golden_checkpoints.py makes it.
    "single-file-sd1": sd(file="sd1"),
    "single-file-sd2": sd(file="sd2-v"),
    "single-file-sdxl": sdxl(file="sdxl"),
}
# The same models in other clothes: what is expected of them is what the first one gives.
FORMS = {"fp16-variant": "sd20-base", "sharded-fp16-variant": "sdxl"}

# ---- Making them ---------------------------------------------------------------------------------


def randomise(model, generator):
    """Weights that keep activations near one and leave nothing at a value that hides a mistake:
    norms get scales and shifts, biases are not zero. At most 8 significant bits each."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("embedding.weight"):
                noise = 0.5 * noise
            elif parameter.dim() >= 2:
                noise = noise / parameter[0].numel()**0.5
            elif name.endswith("weight"):
                noise = 1.0 + 0.2 * noise
            else:
                noise = 0.1 * noise
            parameter.copy_(noise.bfloat16().half())


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def link(path, target):
    """A relative link, so that the tree can lie anywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def save_weights(name, state, dtype=torch.float16):
    path = ROOT / "weights" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.to(dtype).contiguous() for key, value in state.items()}, path,
              metadata={"format": "pt"})


def make_unet_weights(seed, config):
    unet = UNet2DConditionModel.from_config(config)
    randomise(unet, torch.Generator().manual_seed(seed))
    return unet.state_dict()


# The 9-channel UNets differ from the plain ones in their first convolution only, LCM's in one
# layer more. So these are stored apart from the trunk that they share, and the folders are sharded.
CONV_IN = ("conv_in.weight", "conv_in.bias")
SPLIT = {  # UNet: its files
    "sd": ("sd-trunk", "sd-conv-in"),
    "lcm": ("sd-trunk", "sd-conv-in", "lcm-cond-proj"),
    "sd-inpaint": ("sd-trunk", "sd-inpaint-conv-in"),
    "sdxl": ("sdxl-trunk", "sdxl-conv-in"),
    "sdxl-inpaint": ("sdxl-trunk", "sdxl-inpaint-conv-in"),
}
ARCHITECTURE = {"lcm": "sd", "sd-inpaint": "sd", "sdxl-inpaint": "sdxl"}


def make_unets():
    for seed, (name, config) in enumerate(UNETS.items()):
        state = make_unet_weights(seed, config)
        if name not in SPLIT:
            save_weights(f"unet.{name}", state)
            continue
        save_weights(f"unet.{name}-conv-in", {key: state.pop(key) for key in CONV_IN})
        save_weights(f"unet.{name}-trunk", state)
        inpaint = make_unet_weights(100 + seed, config | {"in_channels": 9})
        save_weights(f"unet.{name}-inpaint-conv-in", {key: inpaint[key] for key in CONV_IN})
    lcm = make_unet_weights(200, UNET_SD | {"time_cond_proj_dim": 16})
    key = "time_embedding.cond_proj.weight"
    save_weights("unet.lcm-cond-proj", {key: lcm[key]})


def make_weights():
    make_unets()
    for seed, (name, (projection, config)) in enumerate(TEXTS.items()):
        model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(
            CLIPTextConfig(**config))
        randomise(model, torch.Generator().manual_seed(300 + seed))
        state = {(key if key.startswith("text_") else f"text_model.{key}"): value
                 for key, value in model.state_dict().items()}
        save_weights(f"text.{name}", state)
    for seed, (name, config) in enumerate(VAES.items()):
        tiny = config["_class_name"] == "AutoencoderTiny"
        model = (AutoencoderTiny if tiny else AutoencoderKL).from_config(config)
        randomise(model, torch.Generator().manual_seed(400 + seed))
        save_weights(f"vae.{name}", model.state_dict())


def write_model_index(folder, kind):
    texts = [TEXTS[name][1]["architectures"][0] for name in kind["texts"]]
    index = {"_class_name": kind["pipeline"], "_diffusers_version": "0.19.0.dev0",
             "scheduler": ["diffusers", kind["scheduler"]["_class_name"]],
             "unet": ["diffusers", "UNet2DConditionModel"],
             "vae": ["diffusers", VAES[kind["vae"][0]]["_class_name"]]}
    for i, name in enumerate(texts):
        suffix = "" if i == 0 else f"_{i + 1}"
        index[f"text_encoder{suffix}"] = ["transformers", name]
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    if len(texts) == 2:
        index["force_zeros_for_empty_prompt"] = True
    else:
        index |= {"feature_extractor": [None, None], "safety_checker": [None, None],
                  "requires_safety_checker": False}
    write_json(folder / "model_index.json", index)


def write_files(folder, stem, files, variant=""):
    """Links to a component's weights and, where there are several, the index that joins them."""
    if len(files) == 1:
        link(folder / f"{stem}{variant}.safetensors", files[0])
        return
    places, size = {}, 0
    for i, file in enumerate(files, 1):
        name = f"{stem}{variant}-{i:05}-of-{len(files):05}.safetensors"
        link(folder / name, file)
        for key, value in load_file(file).items():
            places[key] = name
            size += value.numel() * value.element_size()
    write_json(folder / f"{stem}.safetensors.index{variant}.json",
               {"metadata": {"total_size": size}, "weight_map": places})


def weight_file(name):
    return ROOT / "weights" / f"{name}.safetensors"


def write_kind(folder, kind, variant=""):
    write_model_index(folder, kind)
    write_json(folder / "scheduler/scheduler_config.json", kind["scheduler"])
    for i, name in enumerate(kind["texts"]):
        suffix = "" if i == 0 else f"_{i + 1}"
        write_json(folder / f"text_encoder{suffix}/config.json", TEXTS[name][1])
        write_files(folder / f"text_encoder{suffix}", "model", [weight_file(f"text.{name}")],
                    variant)
        # SD 2 and SDXL's second encoder pad with "!", the others with the end token.
        pad = "tokenizer" if name == "clip-l" else "tokenizer_2"
        link(folder / f"tokenizer{suffix}", GOLDEN / "tiny-sdxl" / pad)
    name, changes = kind["unet"]
    write_json(folder / "unet/config.json", UNETS[ARCHITECTURE.get(name, name)] | changes)
    write_files(folder / "unet", "diffusion_pytorch_model",
                [weight_file(f"unet.{part}") for part in SPLIT.get(name, (name,))], variant)
    name, changes = kind["vae"]
    write_json(folder / "vae/config.json", VAES[name] | changes)
    write_files(folder / "vae", "diffusion_pytorch_model", [weight_file(f"vae.{name}")], variant)


def make():
    for folder in ("weights", "models"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    make_weights()
    for name, kind in KINDS.items():
        if "file" not in kind:
            write_kind(ROOT / "models" / name, kind)
    for name, same in FORMS.items():
        write_kind(ROOT / "models" / name, KINDS[same], variant=".fp16")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make()
