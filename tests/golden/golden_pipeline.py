"""A tiny SDXL pipeline with random weights, and every stage of its pictures as diffusers computes
them in float32 on the weights as stored."""

import functools
import json
import pathlib

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerAncestralDiscreteScheduler,
                       EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel)
from safetensors.torch import save_file
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection,
                          CLIPTokenizer)

PROMPT = "a flaming obsidian sword, pixel art!"
NEGATIVE = "blurry, low quality"
SEED = 1234
STEPS = 4
GUIDANCE = 5.0
# Pixels, width by height. The second gives 10 by 14 latents: odd maps further down, so that
# upsampling has to meet the size of a skip connection that is no multiple of two.
SIZES = {"square": (128, 128), "odd": (80, 112)}
SCHEDULERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler,
              "euler_ancestral": EulerAncestralDiscreteScheduler}

# As in stabilityai/stable-diffusion-xl-base-1.0.
SCHEDULER_CONFIG = {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading",
    "trained_betas": None, "use_karras_sigmas": False,
}


def randomise(model, generator):
    """Weights that keep activations near one and leave nothing at a value that hides a mistake:
    norms get scales and shifts, biases are not zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embedding" in name and name.endswith("embedding.weight"):
                parameter.copy_(0.5 * noise)
            elif parameter.dim() >= 2:
                fan_in = parameter[0].numel()
                parameter.copy_(noise / fan_in**0.5)
            elif name.endswith("weight"):
                parameter.copy_(1.0 + 0.2 * noise)
            else:
                parameter.copy_(0.1 * noise)


def text_config(vocabulary, **options):
    return CLIPTextConfig(vocab_size=vocabulary, max_position_embeddings=77, bos_token_id=0,
                          pad_token_id=1, eos_token_id=2, **options)


def build(vocabulary):
    """The models, randomised, each in the precision it is stored in."""
    generator = torch.Generator().manual_seed(0)
    text_encoder = CLIPTextModel(text_config(
        vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=2, hidden_act="quick_gelu", projection_dim=32))
    text_encoder_2 = CLIPTextModelWithProjection(text_config(
        vocabulary, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
        num_attention_heads=4, hidden_act="gelu", projection_dim=48))
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 32, 48),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2, transformer_layers_per_block=[1, 1, 2], attention_head_dim=[2, 2, 1],
        norm_num_groups=16, cross_attention_dim=96, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48 + 6 * 8)
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=4, sample_size=128, scaling_factor=0.13025,
        force_upcast=True)
    models = {"text_encoder": (text_encoder, torch.bfloat16),
              "text_encoder_2": (text_encoder_2, torch.float16),
              "unet": (unet, torch.float16), "vae": (vae, torch.float32)}
    for model, dtype in models.values():
        randomise(model, generator)
        model.to(dtype).eval()
    return {name: model for name, (model, _) in models.items()}


def save(folder, vocabulary):
    """A standard folder, as diffusers writes it and people download it."""
    scheduler = EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG)
    tokenizers = {name: CLIPTokenizer.from_pretrained(folder / name)
                  for name in ("tokenizer", "tokenizer_2")}
    kept = {path: path.read_bytes() for name in tokenizers for path in (folder / name).iterdir()}
    pipeline = StableDiffusionXLPipeline(**build(vocabulary), **tokenizers, scheduler=scheduler,
                                         force_zeros_for_empty_prompt=True,
                                         add_watermarker=False)
    pipeline.save_pretrained(folder)
    # diffusers writes its own forms over those that SDXL's repository has.
    config = json.dumps(SCHEDULER_CONFIG, indent=2)
    (folder / "scheduler" / "scheduler_config.json").write_text(config + "\n")
    for name in tokenizers:
        for path in (folder / name).iterdir():
            path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def load(folder):
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32,
                                                         add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def to_rgb(image):
    """[1, 3, h, w] in [-1, 1] -> [h, w, 3] bytes, as VaeImageProcessor and PIL do it."""
    pixels = (image / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    return torch.from_numpy((pixels * 255).round().astype("uint8"))


def run(pipeline, scheduler_name, size, guided, negative, steps=STEPS):
    """One picture: the tensors of every stage, named as txt2img --dump names them."""
    width, height = SIZES[size]
    config = json.loads((pathlib.Path(pipeline.name_or_path) / "scheduler" /
                         "scheduler_config.json").read_text())
    pipeline.scheduler = SCHEDULERS[scheduler_name].from_config(config)
    out = {}
    generator = torch.Generator("cpu").manual_seed(SEED)
    noise = torch.randn((1, 4, height // 8, width // 8), generator=generator)
    out["noise"] = noise.clone()

    unet_outputs = []
    hook = pipeline.unet.register_forward_hook(
        lambda module, inputs, output: unet_outputs.append(output[0].clone()))
    step = pipeline.scheduler.step
    predictions = []

    @functools.wraps(step)  # the pipeline looks at the signature to see what it may pass
    def recording_step(model_output, *arguments, **options):
        predictions.append(model_output.clone())
        return step(model_output, *arguments, **options)

    pipeline.scheduler.step = recording_step

    def on_step(pipe, i, timestep, tensors):
        out[f"latents.{i}"] = tensors["latents"].clone()
        return {}

    embeds = pipeline.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=guided,
                                    negative_prompt=negative)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds",
             "negative_pooled_prompt_embeds")
    out.update({name: value.clone() for name, value in zip(names, embeds) if value is not None})
    latents = pipeline(prompt=PROMPT, negative_prompt=negative, width=width, height=height,
                       num_inference_steps=steps, guidance_scale=GUIDANCE if guided else 1.0,
                       generator=torch.Generator("cpu").manual_seed(SEED), output_type="latent",
                       callback_on_step_end=on_step).images
    hook.remove()
    image = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor,
                                return_dict=False)[0]
    out["timesteps"] = pipeline.scheduler.timesteps.to(torch.float32)
    for i, (raw, prediction) in enumerate(zip(unet_outputs, predictions)):
        if guided:
            out[f"noise_pred_uncond.{i}"], out[f"noise_pred_text.{i}"] = raw.chunk(2)
        out[f"noise_pred.{i}"] = prediction
    out["image"] = image
    out["rgb"] = to_rgb(image)
    return out


def reduced(tensors, full):
    """What the fixture keeps of a run: embeddings and the float picture only where asked for."""
    drop = () if full else ("image", "prompt_embeds", "negative_prompt_embeds",
                            "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return {name: tensor.contiguous() for name, tensor in tensors.items() if name not in drop}


def make(root, folder, vocabulary):
    torch.manual_seed(0)
    save(folder, vocabulary)
    pipeline = load(folder)
    settings = {}
    with torch.no_grad():
        for scheduler in SCHEDULERS:
            for size, (width, height) in SIZES.items():
                for guided in (True, False):
                    # Without a negative prompt SDXL takes zeros; with one, its embedding.
                    negative = NEGATIVE if guided and scheduler != "ddim" else None
                    name = f"{scheduler}.{size}.{'guided' if guided else 'plain'}"
                    tensors = run(pipeline, scheduler, size, guided, negative)
                    full = guided and (scheduler, size) in (("ddim", "square"), ("euler", "odd"))
                    settings[name] = {
                        "prompt": PROMPT, "negative_prompt": negative, "width": width,
                        "height": height, "steps": STEPS, "seed": SEED, "scheduler": scheduler,
                        "guidance": GUIDANCE if guided else 1.0}
                    save_file(reduced(tensors, full), root / "expected" / f"run.{name}.safetensors")
    text = json.dumps(settings, indent=2)
    (root / "expected" / "runs.json").write_text(text + "\n")
