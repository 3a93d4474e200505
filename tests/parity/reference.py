"""A picture of the list as diffusers makes it: its own pipeline, scheduler and VAE in float32, with
every stage's tensors recorded on the way.

Nothing here is computed by code of ours but what diffusers has no way to say: guidance in a part
of the steps (by its guiders' rule), step caching and token merging (shortcuts.py), prompt weights
(A1111's), convolutions of a LoCon, and convolutions that wrap.
"""

import copy
import functools
import sys
import warnings

import diffusers
import torch
import transformers
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import load_file

import adapters
import controls
import kinds
import prompts
import samplers
import shortcuts

sys.path.insert(0, str(kinds.GOLDEN))
import golden_checkpoints  # noqa: E402

logging.set_verbosity_error()
logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
# diffusers 0.42 looks for a level of names that transformers 5 no longer has.
transformers.CLIPTextModel.text_model = property(lambda self: self)
warnings.filterwarnings("ignore", category=FutureWarning)

WIDTH, HEIGHT = 64, 72  # 9 rows of latents: maps further down are odd
STEPS = 4
PIPELINES = {
    ("sd", "txt2img"): diffusers.StableDiffusionPipeline,
    ("sd", "img2img"): diffusers.StableDiffusionImg2ImgPipeline,
    ("sd", "inpaint"): diffusers.StableDiffusionInpaintPipeline,
    ("sdxl", "txt2img"): diffusers.StableDiffusionXLPipeline,
    ("sdxl", "img2img"): diffusers.StableDiffusionXLImg2ImgPipeline,
    ("sdxl", "inpaint"): diffusers.StableDiffusionXLInpaintPipeline,
}


@functools.cache
def single_file(name):
    """The pipeline whose weights a single file has, as the golden tests of checkpoints make it."""
    build, texts, unused, spread = golden_checkpoints.KINDS[name][:4]
    pipe = build()
    golden_checkpoints.load_weights(pipe, texts, golden_checkpoints.tensors_of(
        pipe, texts, unused, spread))
    return pipe


def load(kind):
    """The kind's own pipeline, from its folder or as its file has it."""
    if "file" in kinds.KINDS[kind]:
        return copy.deepcopy(single_file(kinds.KINDS[kind]["file"]))
    options = {"add_watermarker": False} if family(kind) == "sdxl" else {}
    return diffusers.DiffusionPipeline.from_pretrained(kinds.ROOT / "models" / kind,
                                                       dtype=torch.float32, **options)


def family(kind):
    return "sdxl" if len(kinds.KINDS[kind]["texts"]) == 2 else "sd"


def is_inpainting(kind):
    """Nine channels: it can do nothing else."""
    return "Inpaint" in kinds.KINDS[kind]["pipeline"]


def pipeline_of(kind, control):
    return "inpaint" if is_inpainting(kind) else controls.pipeline(control)


def settings_of(kind, control):
    """The request's fields, all of them, as the engine gets them."""
    settings = {"prompt": controls.PROMPT, "negative_prompt": None, "width": WIDTH,
                "height": HEIGHT, "steps": STEPS, "guidance": kinds.KINDS[kind]["guidance"],
                "seed": kinds.KINDS[kind]["seed"]}
    if is_inpainting(kind):
        settings["strength"] = 1.0
    own = settings["guidance"]
    settings |= controls.settings(control)
    if own > 1:
        settings["guidance"] = own
    if pipeline_of(kind, control) != "txt2img":
        settings["init_image"] = True
    if pipeline_of(kind, control) == "inpaint":
        settings["mask_image"] = True
    return settings


# ---- Pictures that come in -----------------------------------------------------------------------


@functools.cache
def init_image():
    """Smooth colours and some noise, [h, w, 3] bytes."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    waves = torch.stack([torch.sin(x / 7.0), torch.cos(y / 9.0), torch.sin((x + y) / 11.0)], -1)
    noise = torch.rand(waves.shape, generator=torch.Generator().manual_seed(9))
    return ((waves * 0.4 + 0.5) * 220 + noise * 30).round().clamp(0, 255).to(torch.uint8)


@functools.cache
def mask_image():
    """255 = paint anew: a disc off the middle."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    inside = (x - 40) ** 2 + (y - 30) ** 2 < 20 ** 2
    return (inside * 255).to(torch.uint8)


# ---- What the pipelines are made to do -----------------------------------------------------------


class Recorder:
    """Hooks into one run of a pipeline."""

    def __init__(self, pipe, settings):
        self.pipe, self.settings = pipe, settings
        self.contexts, self.outputs, self.predictions, self.latents = None, [], [], []
        self.hooks = [
            pipe.unet.register_forward_pre_hook(self.before_unet, with_kwargs=True),
            pipe.unet.register_forward_hook(lambda *hook: self.outputs.append(hook[2][0].clone())),
        ]
        step = pipe.scheduler.step
        rescale = settings.get("guidance_rescale", 0)
        knows_rescale = hasattr(type(pipe), "guidance_rescale")

        @functools.wraps(step)  # the pipeline looks at the signature to see what it may pass
        def recording_step(prediction, *arguments, **options):
            if rescale and not knows_rescale and pipe.do_classifier_free_guidance:
                prediction = rescale_noise_cfg(prediction, self.outputs[-1].chunk(2)[1], rescale)
            self.predictions.append(prediction.clone())
            return step(prediction, *arguments, **options)

        pipe.scheduler.step = recording_step

    def before_unet(self, module, arguments, options):
        if self.contexts is None:
            added = options.get("added_cond_kwargs") or {}
            self.contexts = (options["encoder_hidden_states"].clone(), added.get("text_embeds"))

    def on_step_end(self, pipe, i, timestep, tensors):
        self.latents.append(tensors["latents"].clone())
        return {}

    def close(self):
        for hook in self.hooks:
            hook.remove()


def with_interval(pipe, recorder, settings):
    """Guidance only in steps int(start * n) <= i < int(end * n), as diffusers' guiders have it. In
    the others the UNet sees the prompt alone, although the pipeline goes on in pairs."""
    first = int(settings["guidance_start"] * STEPS)
    last = int(settings["guidance_end"] * STEPS)
    forward = pipe.unet.forward

    def last_half(value):
        return value[value.shape[0] // 2:] if torch.is_tensor(value) and value.dim() > 1 else value

    def forward_alone(sample, *arguments, **options):
        if first <= len(recorder.predictions) < last or not pipe.do_classifier_free_guidance:
            return forward(sample, *arguments, **options)
        options = {key: {name: last_half(each) for name, each in value.items()}
                   if isinstance(value, dict) else last_half(value)
                   for key, value in options.items()}
        (prediction,) = forward(last_half(sample), *arguments, **options)
        return (torch.cat([prediction, prediction]),)

    pipe.unet.forward = forward_alone

    class Interval(type(pipe)):
        @property
        def guidance_scale(self):
            i = len(recorder.predictions)
            return self._guidance_scale if first <= i < last else 1.0

    Interval.__name__ = type(pipe).__name__
    pipe.__class__ = Interval


def make_seamless(models, tile_x, tile_y):
    """Convolutions that pad with the opposite edge, along one axis or both."""
    def forward(conv, x, weight, bias):
        across, down = conv.padding[1], conv.padding[0]
        if conv.padding != (0, 0):
            x = torch.nn.functional.pad(x, (across, across, 0, 0),
                                        mode="circular" if tile_x else "constant")
            x = torch.nn.functional.pad(x, (0, 0, down, down),
                                        mode="circular" if tile_y else "constant")
        return torch.nn.functional.conv2d(x, weight, bias, conv.stride, 0, conv.dilation,
                                          conv.groups)

    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module._conv_forward = functools.partial(forward, module)


def load_adapters(pipe, kind, loras):
    """The UNet's part through diffusers; text encoders by the definition, as diffusers 0.42 loses
    kohya's layers of them with transformers 5."""
    folder = adapters.folder_of(kind)
    for name, weight in loras:
        state = load_file(folder / f"{name}.safetensors")
        adapters.apply_to_text(pipe, state, weight)
        if name == "locon":
            adapters.apply_locon(pipe.unet, state, weight)
            continue
        state = {key: value.float() for key, value in state.items() if "unet" in key[:10]}
        pipe.load_lora_weights(state, adapter_name=name)
        loaded = {module for module, _ in pipe.unet.named_modules()
                  if module.endswith(f"lora_A.{name}")}
        if len(loaded) != len(adapters.unet_modules(pipe.unet)):
            raise ValueError(f"{name}: diffusers took {len(loaded)} of the UNet's layers")
    if loras[0][0] != "locon":
        pipe.set_adapters([name for name, _ in loras], [weight for _, weight in loras])


def load_embedding(pipe, kind):
    state = load_file(adapters.folder_of(kind) / f"embeddings/{controls.LEARNED}.safetensors")
    if "emb_params" in state:
        pipe.load_textual_inversion(state["emb_params"], token=controls.LEARNED)
        return
    for key, text, tokenizer in (("clip_l", pipe.text_encoder, pipe.tokenizer),
                                 ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2)):
        pipe.load_textual_inversion(state[key], token=controls.LEARNED, text_encoder=text,
                                    tokenizer=tokenizer)


def prompt_arguments(pipe, control, settings):
    """The prompts as text, or as embeddings where diffusers has no syntax for them."""
    if control in ("weights", "long_prompt"):
        return prompts.embeddings(pipe, settings["prompt"], settings["negative_prompt"] or "",
                                  settings["guidance"] > 1)
    return {"prompt": settings["prompt"], "negative_prompt": settings["negative_prompt"]}


def picture_arguments(pipe, settings):
    arguments = {}
    if "init_image" in settings:
        arguments |= {"image": Image.fromarray(init_image().numpy()),
                      "strength": settings["strength"]}
    if "mask_image" in settings:
        mask = Image.fromarray(mask_image().numpy())
        if "mask_blur" in settings:
            mask = pipe.mask_processor.blur(mask, settings["mask_blur"])
        arguments["mask_image"] = mask
    if "init_image" not in settings or "mask_image" in settings:
        arguments |= {"width": settings["width"], "height": settings["height"]}
    return arguments


def generators(settings, pictures):
    made = [torch.Generator("cpu").manual_seed(settings["seed"] + i) for i in range(pictures)]
    return made if pictures > 1 else made[0]


# ---- A run ---------------------------------------------------------------------------------------


def prepare(kind, sampler, schedule, control, settings):
    """(pipeline, recorder) of a case, the scheduler set."""
    pipe = load(kind)
    config = pipe.scheduler.config
    if controls.engine_options(control).get("weights") == "bf16":
        for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
            if hasattr(pipe, name):
                getattr(pipe, name).to(torch.bfloat16).to(torch.float32)
    wanted = PIPELINES[family(kind), pipeline_of(kind, control)]
    if type(pipe) is not wanted:
        options = {"add_watermarker": False} if family(kind) == "sdxl" else {}
        pipe = wanted(**pipe.components, **options)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = (samplers.create(sampler, schedule, config) if sampler else
                      type(pipe.scheduler).from_config(config))
    if "loras" in settings:
        load_adapters(pipe, kind, settings["loras"])
    if control == "embedding":
        load_embedding(pipe, kind)
    if settings.get("tile_x") or settings.get("tile_y"):
        make_seamless((pipe.unet, pipe.vae), settings.get("tile_x"), settings.get("tile_y"))
    shortcuts.apply(pipe.unet, settings)
    recorder = Recorder(pipe, settings)
    if "guidance_start" in settings and pipe.unet.config.time_cond_proj_dim is None:
        with_interval(pipe, recorder, settings)
    return pipe, recorder


def run(kind, sampler, schedule, control):
    """The tensors of each picture of a case, under the names of the engine's dump."""
    settings = settings_of(kind, control)
    pictures = controls.pictures(control)
    if is_inpainting(kind):
        # Given several generators, the inpainting pipelines take the masked picture's noise from
        # the first for all; a picture of ours depends on its own seed alone. So a call for each.
        seeds = range(settings["seed"], settings["seed"] + pictures)
        return [run_once(kind, sampler, schedule, control, settings | {"seed": seed}, 1)[0]
                for seed in seeds]
    return run_once(kind, sampler, schedule, control, settings, pictures)


def run_once(kind, sampler, schedule, control, settings, pictures):
    """One call of the pipeline."""
    pipe, recorder = prepare(kind, sampler, schedule, control, settings)
    generator = generators(settings, pictures)
    samplers.draw_from(generator)
    options = {}
    if "guidance_rescale" in settings and hasattr(type(pipe), "guidance_rescale"):
        options["guidance_rescale"] = settings["guidance_rescale"]
    if "clip_skip" in settings:
        options["clip_skip"] = settings["clip_skip"]
    latents = pipe(num_inference_steps=settings["steps"], guidance_scale=settings["guidance"],
                   generator=generator, output_type="latent", num_images_per_prompt=pictures,
                   callback_on_step_end=recorder.on_step_end,
                   **prompt_arguments(pipe, control, settings),
                   **picture_arguments(pipe, settings), **options).images
    image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
    recorder.close()
    return [collect(recorder, image, i, pictures) for i in range(pictures)]


def collect(recorder, image, i, pictures):
    """Picture i of a run: the text, the first and the last prediction, what they led to."""
    hidden, pooled = recorder.contexts
    guided = hidden.shape[0] == 2 * pictures
    out = {"prompt_embeds": hidden[i - pictures:][:1]}
    if pooled is not None:
        out["pooled_prompt_embeds"] = pooled[i - pictures:][:1]
    if guided:
        out["negative_prompt_embeds"] = hidden[i:i + 1]
        if pooled is not None:
            out["negative_pooled_prompt_embeds"] = pooled[i:i + 1]
    last = len(recorder.predictions) - 1
    for step in {0, last}:
        out[f"noise_pred.{step}"] = recorder.predictions[step][i:i + 1]
    out[f"latents.{last}"] = recorder.latents[last][i:i + 1]
    out["image"] = image[i:i + 1]
    for name, tensor in out.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
    return out
