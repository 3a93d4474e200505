"""The picture controls as diffusers computes them on the tiny pipeline: seamless tiling."""

import contextlib
import json

import torch
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


def make(root, folder):
    pipeline = tiny.load(folder)
    settings = {}
    with torch.no_grad():
        make_tiles(root, pipeline, settings)
    text = json.dumps(settings, indent=2)
    (root / "expected" / "pictures.json").write_text(text + "\n")
