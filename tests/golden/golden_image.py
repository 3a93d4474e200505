"""Pictures resized and masks blurred by Pillow, as diffusers' VaeImageProcessor does it."""

import numpy
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

# width, height -> new width, new height
SIZES = [((17, 13), (17, 13)), ((17, 13), (40, 29)), ((64, 48), (16, 24)), ((31, 57), (8, 57)),
         ((5, 3), (64, 1)), ((1, 1), (8, 8)), ((200, 3), (7, 50)),
         ((33, 60), (28, 33)), ((36, 14), (28, 4))]
RADII = [0.0, 0.3, 1.0, 2.0, 4.0, 7.5, 33.0]


def pixels(height, width, channels, seed):
    """Noise with hard edges: what makes Lanczos overshoot and has to be cut off."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (height, width, channels), generator=generator)
    values[: height // 2, : width // 2] = 255
    values[height // 2:, width // 2:] = 0
    return values.to(torch.uint8)


def to_tensor(image):
    return torch.from_numpy(numpy.array(image))


def make(root):
    tensors = {}
    for i, (size, new_size) in enumerate(SIZES):
        for channels, kind in ((3, "rgb"), (1, "gray")):
            source = pixels(size[1], size[0], channels, i)
            picture = Image.fromarray(source.squeeze(-1).numpy() if channels == 1 else
                                      source.numpy())
            tensors[f"resize.{kind}.{i}.from"] = source
            tensors[f"resize.{kind}.{i}.to"] = to_tensor(
                picture.resize(new_size, resample=Image.Resampling.LANCZOS)).reshape(
                    new_size[1], new_size[0], channels)
    mask = torch.zeros((29, 41), dtype=torch.uint8)
    mask[5:20, 3:30] = 255
    mask[12, 35] = 130
    tensors["blur.from"] = mask
    for i, radius in enumerate(RADII):
        blurred = Image.fromarray(mask.numpy()).filter(ImageFilter.GaussianBlur(radius))
        tensors[f"blur.{i}.radius"] = torch.tensor([radius], dtype=torch.float32)
        tensors[f"blur.{i}.to"] = to_tensor(blurred)
    save_file(tensors, root / "expected" / "image.safetensors")
