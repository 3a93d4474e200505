#!/usr/bin/env python3
"""How far diffusers' own UNet in torch.bfloat16 is from itself in float32, same weights, same
inputs: what ours in bf16 is held against where a model magnifies rounding beyond the bound.

    bfloat16.py            of every kind of the list, in its plain case, into cases/bf16.json
    bfloat16.py KIND...    only of these

make_fixtures.py does it too.
"""

import json
import sys

import torch

import kinds
import reference
import samplers

PATH = kinds.ROOT / "cases/bf16.json"


def relative_error(ours, theirs):
    return (torch.linalg.vector_norm((ours - theirs).double()) /
            torch.linalg.vector_norm(theirs.double())).item()


def cast(value):
    """Inputs as a pipeline of bfloat16 has them: timesteps stay what they are."""
    if isinstance(value, dict):
        return {key: cast(each) for key, each in value.items()}
    return value.bfloat16() if torch.is_tensor(value) and value.dim() > 0 else value


def predict(unet, arguments, options):
    """The prediction in bfloat16, as float32. The UNet is bfloat16 from then on."""
    unet.to(torch.bfloat16)
    return unet(*map(cast, arguments), **cast(options))[0].float()


def first_call(kind):
    """(UNet, its arguments, options) of the first forward in the kind's plain case."""
    settings, calls = reference.settings_of(kind, "none"), []
    pipe, recorder = reference.prepare(kind, "", "default", "none", settings)
    hook = pipe.unet.register_forward_pre_hook(
        lambda _unet, arguments, options: calls.append((arguments, options)), with_kwargs=True)
    generator = reference.generators(settings, 1)
    samplers.draw_from(generator)
    pipe(num_inference_steps=settings["steps"], guidance_scale=settings["guidance"],
         generator=generator, output_type="latent",
         **reference.prompt_arguments(pipe, "none", settings),
         **reference.picture_arguments(pipe, settings))
    hook.remove()
    recorder.close()
    return pipe.unet, *calls[0]


def forward_error(kind):
    """Of the worse half of a guided batch."""
    unet, arguments, options = first_call(kind)
    exact = unet(*arguments, **options)[0]
    rounded = predict(unet, arguments, options)
    return max(map(relative_error, rounded, exact))


def write(wanted):
    errors = json.loads(PATH.read_text()) if PATH.exists() else {}
    errors |= {kind: float(f"{forward_error(kind):.1e}") for kind in wanted}
    kinds.write_json(PATH, errors)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    write(sys.argv[1:] or kinds.KINDS)
