"""Every form of the models, each alone and tiny: the UNets of the Stable Diffusion family, both
autoencoders in both directions, and the text encoders' states. A fixture is a folder models/NAME
with config.json and weights as diffusers writes them, and expected.safetensors: inputs and what
diffusers or transformers makes of them in float32.

The pictures of whole pipelines are tests/parity's."""

import shutil

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import (
    LatentConsistencyModelPipeline)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from golden_pipeline import randomise

TOKENS = 5
GUIDANCE = 7.5
TIME_IDS = (56.0, 40.0, 8.0, 16.0, 48.0, 64.0)  # no two alike
POOLED = 6

CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")

SD = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "norm_num_groups": 2,
      "block_out_channels": (4, 6), "layers_per_block": 1, "cross_attention_dim": 8,
      "attention_head_dim": 2}
SDXL = SD | {"use_linear_projection": True, "addition_embed_type": "text_time",
             "addition_time_embed_dim": 4,
             "projection_class_embeddings_input_dim": POOLED + 6 * 4}


def blocks(*kinds):
    """The block types of a UNet whose levels, from the top, are of these kinds."""
    return {"down_block_types": [down for down, _ in kinds],
            "up_block_types": [up for _, up in reversed(kinds)]}


UNETS = {
    # 1x1 convolutions as projections, one number of heads, no attention at the bottom.
    "sd1": SD | {"layers_per_block": 2, "block_out_channels": (4, 4, 6)} | blocks(CROSS, CROSS, PLAIN),
    # SD 2: linear projections, heads by level.
    "sd2": SD | {"attention_head_dim": [2, 3], "use_linear_projection": True,
                 "upcast_attention": True} | blocks(CROSS, PLAIN),
    # The guidance scale as an input; an odd number of its channels pads with zero.
    "lcm": SD | {"time_cond_proj_dim": 7} | blocks(CROSS, CROSS),
    # segmind's tiny-sd: one layer a block, as in small-sd, and no middle.
    "tiny": SD | {"mid_block_type": None} | blocks(CROSS, CROSS),
    "inpaint": SD | {"in_channels": 9} | blocks(CROSS, PLAIN),
    # SSD-1B and Segmind-Vega: as many transformer blocks as each single layer says.
    "ssd": SDXL | {"layers_per_block": [1, 2], "transformer_layers_per_block": [0, [2, 1]],
                   "reverse_transformer_layers_per_block": [[1, 3, 2], 1],
                   "mid_block_type": "UNetMidBlock2D"} | blocks(PLAIN, CROSS),
    "vega": SDXL | {"transformer_layers_per_block": [1, [2]],
                    "reverse_transformer_layers_per_block": [[1, 2], [0, 1]],
                    "mid_block_type": "UNetMidBlock2DCrossAttn"} | blocks(CROSS, CROSS),
    "sdxl-lcm-inpaint": SDXL | {"in_channels": 9, "time_cond_proj_dim": 8,
                                "transformer_layers_per_block": [1, 2]} | blocks(PLAIN, CROSS),
    # The first attention of each transformer block sees the prompt, not the picture.
    "only-cross": SD | {"only_cross_attention": [True, False], "in_channels": 8,
                        "cross_attention_dim": 6} | blocks(CROSS, CROSS),
}

KL = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (4, 8, 8),
      "layers_per_block": 1, "norm_num_groups": 4, "down_block_types": ("DownEncoderBlock2D",) * 3,
      "up_block_types": ("UpDecoderBlock2D",) * 3}
TAESD = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4,
         "num_encoder_blocks": (1, 2, 1, 1), "num_decoder_blocks": (2, 1, 1, 1)}

VAES = {
    "kl": (AutoencoderKL, KL | {"scaling_factor": 0.18215}),
    "kl-bare": (AutoencoderKL, KL | {"use_quant_conv": False, "use_post_quant_conv": False,
                                     "mid_block_add_attention": False, "force_upcast": True,
                                     "layers_per_block": 2, "scaling_factor": 0.13025}),
    "kl-statistics": (AutoencoderKL, KL | {
        "block_out_channels": (4, 4), "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "scaling_factor": 0.5,
        "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
        "latents_std": [8.4927, 5.9022, 6.5498, 5.2299]}),
    "tiny": (AutoencoderTiny, TAESD),
    "tiny-one-block": (AutoencoderTiny, TAESD | {
        "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (16, 16),
        "num_encoder_blocks": (0, 1), "num_decoder_blocks": (1, 0), "scaling_factor": 0.5}),
}

TEXT = {"vocab_size": 60, "max_position_embeddings": 9, "hidden_size": 12,
        "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3,
        "projection_dim": 6}
TEXTS = {
    "clip-l": (CLIPTextModel, TEXT | {"hidden_act": "quick_gelu", "eos_token_id": 2}),
    "open-clip-h": (CLIPTextModelWithProjection, TEXT | {"hidden_act": "gelu",
                                                         "eos_token_id": 58}),
}
# Two end tokens (58), as a prompt padded with them has; the largest id is the first of them.
IDS = (57, 11, 40, 3, 58, 0, 58)


def stored(model, generator):
    """The model with random weights that float16 holds exactly, saved as such."""
    randomise(model, generator)
    return model.half().float().eval()


def write(folder, model, tensors):
    model.half().save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()},
              folder / "expected.safetensors")


def run_unet(unet, generator):
    """Two pictures of odd sizes at once, with different prompts, and the same alone."""
    config = unet.config
    def draw(*shape):
        return torch.randn(shape, generator=generator)
    out = {"sample": draw(2, config.in_channels, 7, 5), "text": draw(2, TOKENS,
                                                                     config.cross_attention_dim)}
    timestep = torch.tensor(681.0)
    options = {}
    if config.addition_embed_type == "text_time":
        out["pooled"] = draw(2, POOLED)
        out["time_ids"] = torch.tensor(TIME_IDS)
        options["added_cond_kwargs"] = {"text_embeds": out["pooled"],
                                        "time_ids": out["time_ids"].repeat(2, 1)}
    if config.time_cond_proj_dim is not None:
        scale = torch.tensor(GUIDANCE - 1).repeat(2)
        options["timestep_cond"] = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
            None, scale, embedding_dim=config.time_cond_proj_dim)
        out["guidance"] = torch.tensor([GUIDANCE])
    out["timestep"] = timestep.reshape(1)
    out["output"] = unet(out["sample"], timestep, encoder_hidden_states=out["text"],
                         **options).sample
    return out


def run_vae(vae, generator):
    """As the pipelines call it: latents of the UNet's scale in and out."""
    config = vae.config
    is_kl = isinstance(vae, AutoencoderKL)
    stages = len(config.block_out_channels)
    factor = 2 ** (stages - 1)
    latents = 0.8 * torch.randn((2, 4, 3, 5), generator=generator)
    image = torch.rand((2, 3, 3 * factor, 5 * factor), generator=generator) * 2 - 1
    noise = torch.randn((2, 4, 3, 5), generator=generator)
    out = {"latents": latents, "picture": image, "noise": noise}
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if is_kl:
        posterior = vae.encode(image).latent_dist
        out["code"] = posterior.parameters
        encoded = posterior.mean + posterior.std * noise
    else:
        out["code"] = encoded = vae.encode(image).latents
    if mean is not None:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        out["encoded"] = (encoded - mean) * config.scaling_factor / std
        latents = latents * std / config.scaling_factor + mean
    else:
        out["encoded"] = config.scaling_factor * encoded
        latents = latents / config.scaling_factor
    out["decoded"] = vae.decode(latents).sample
    return out


def run_text(model, _generator):
    """hidden.K: the state with K layers left out at the end; normed.K: after the final norm."""
    ids = torch.tensor([IDS])
    result = model(ids, output_hidden_states=True)
    text_model = getattr(model, "text_model", model)
    out = {"ids": torch.tensor(IDS, dtype=torch.int32)}
    for skip in range(TEXT["num_hidden_layers"] + 1):
        hidden = result.hidden_states[-(skip + 1)]
        out[f"hidden.{skip}"] = hidden
        out[f"normed.{skip}"] = text_model.final_layer_norm(hidden)
    out["last"] = result.last_hidden_state
    if isinstance(model, CLIPTextModelWithProjection):
        out["pooled"] = result.text_embeds
    return out


def make(root):
    models = root / "models"
    shutil.rmtree(models, ignore_errors=True)
    generator = torch.Generator().manual_seed(11)
    made = [(f"unet-{name}", UNet2DConditionModel(**config), run_unet)
            for name, config in UNETS.items()]
    made += [(f"vae-{name}", kind(**config), run_vae) for name, (kind, config) in VAES.items()]
    made += [(f"text-{name}", kind(CLIPTextConfig(bos_token_id=57, pad_token_id=0, **config)),
              run_text) for name, (kind, config) in TEXTS.items()]
    with torch.no_grad():
        for name, model, run in made:
            model = stored(model, generator)
            write(models / name, model, run(model, generator))
            for path in (models / name).iterdir():
                path.chmod(0o644)
