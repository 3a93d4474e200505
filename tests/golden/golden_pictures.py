"""The picture controls as diffusers computes them on the tiny pipeline: seamless tiling, pictures
and masks of another size than the one asked for. (tests/parity has pictures and masks of the right
size, with every kind of model and every sampler.)"""

import contextlib
import json

import torch
from diffusers import (EulerAncestralDiscreteScheduler, StableDiffusionXLImg2ImgPipeline,
                       StableDiffusionXLInpaintPipeline)
from PIL import Image
from safetensors.torch import save_file

import golden_pipeline as tiny

TILES = {"tile_x": (True, False), "tile_y": (False, True), "tile_xy": (True, True)}


@contextlib.contextmanager
def seamless(wrap_x, wrap_y):
    """Every padded Conv2d pads circularly along the given axes, as people patch diffusers."""
    plain = torch.nn.Conv2d._conv_forward

    def forward(self, x, weight, bias):
        vertical, horizontal = self.padding
        x = torch.nn.functional.pad(x, (horizontal, horizontal, 0, 0),
                                    mode="circular" if wrap_x else "constant")
        x = torch.nn.functional.pad(x, (0, 0, vertical, vertical),
                                    mode="circular" if wrap_y else "constant")
        return torch.nn.functional.conv2d(x, weight, bias, self.stride, 0, self.dilation,
                                          self.groups)

    torch.nn.Conv2d._conv_forward = forward
    try:
        yield
    finally:
        torch.nn.Conv2d._conv_forward = plain


def make_tiles(root, pipeline, settings):
    width, height = tiny.SIZES["odd"]
    for name, (wrap_x, wrap_y) in TILES.items():
        with seamless(wrap_x, wrap_y):
            tensors = tiny.run(pipeline, "euler", "odd", True, tiny.NEGATIVE)
        settings[name] = {
            "prompt": tiny.PROMPT, "negative_prompt": tiny.NEGATIVE, "width": width,
            "height": height, "steps": tiny.STEPS, "seed": tiny.SEED, "scheduler": "euler",
            "guidance": tiny.GUIDANCE, "tile_x": wrap_x, "tile_y": wrap_y}
        save_file(tiny.reduced(tensors, False),
                  root / "expected" / f"picture.{name}.safetensors")


def init_image():
    """[37, 61, 3] bytes: smooth colours and a hard edge."""
    y, x = torch.meshgrid(torch.arange(37), torch.arange(61), indexing="ij")
    colours = torch.stack([x * 4, y * 6, (x + y) * 2], -1)
    colours[10:25, 20:40] = torch.tensor([230, 40, 90])
    return colours.clamp(0, 255).to(torch.uint8)


def mask_image():
    """[50, 44] bytes: 255 = paint anew."""
    mask = torch.zeros((50, 44), dtype=torch.uint8)
    mask[8:30, 12:40] = 255
    return mask


def run_from_picture(pipeline, size, **options):
    """The latents after each step and the picture."""
    width, height = tiny.SIZES[size]
    image = pipeline.image_processor.resize(Image.fromarray(init_image().numpy()), height, width)
    out = {}

    def on_step(pipe, i, timestep, tensors):
        out[f"latents.{i}"] = tensors["latents"].clone()
        return {}

    latents = pipeline(prompt=tiny.PROMPT, negative_prompt=tiny.NEGATIVE, image=image,
                       num_inference_steps=tiny.STEPS, guidance_scale=tiny.GUIDANCE,
                       generator=torch.Generator("cpu").manual_seed(tiny.SEED),
                       output_type="latent", callback_on_step_end=on_step, **options).images
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor,
                                  return_dict=False)[0]
    out["rgb"] = tiny.to_rgb(decoded)
    return {name: tensor.contiguous() for name, tensor in out.items()}


def make_from_pictures(root, pipeline, settings):
    width, height = tiny.SIZES["odd"]
    config = pipeline.scheduler.config
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(config)
    parts = dict(pipeline.components, add_watermarker=False)
    img2img = StableDiffusionXLImg2ImgPipeline(**parts)
    inpaint = StableDiffusionXLInpaintPipeline(**parts)
    mask = inpaint.mask_processor.blur(Image.fromarray(mask_image().numpy()), 3)
    runs = {
        "img2img": (img2img, {"strength": 0.6}, {}),
        "inpaint": (inpaint, {"strength": 0.75, "mask_blur": 3},
                    {"mask_image": mask, "width": width, "height": height})}
    for name, (pipe, options, arguments) in runs.items():
        pipe.set_progress_bar_config(disable=True)
        tensors = run_from_picture(pipe, "odd", strength=options["strength"], **arguments)
        settings[name] = {
            "prompt": tiny.PROMPT, "negative_prompt": tiny.NEGATIVE, "width": width,
            "height": height, "steps": tiny.STEPS, "seed": tiny.SEED,
            "scheduler": "euler_ancestral", "guidance": tiny.GUIDANCE, **options}
        tensors["init_image"] = init_image()
        if "mask_image" in arguments:
            tensors["mask_image"] = mask_image()
        save_file(tensors, root / "expected" / f"picture.{name}.safetensors")


def make(root, folder):
    pipeline = tiny.load(folder)
    settings = {}
    with torch.no_grad():
        make_tiles(root, pipeline, settings)
        make_from_pictures(root, pipeline, settings)
    text = json.dumps(settings, indent=2)
    (root / "expected" / "pictures.json").write_text(text + "\n")
