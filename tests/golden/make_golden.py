#!/usr/bin/env python3
"""Makes the golden fixtures anew: a tiny random-weight SDXL folder (tiny-sdxl), tokenizer folders
and scheduler configurations, and what torch, transformers and diffusers make of them (expected).

`make golden` runs it in an environment with the versions of requirements.txt. The fixtures are
committed, so that the tests need none of these packages.
"""

import pathlib
import shutil

import torch

import golden_checkpoints
import golden_lora
import golden_models
import golden_image
import golden_noise
import golden_pictures
import golden_pipeline
import golden_prompts
import golden_schedulers
import golden_tokenizer
import golden_tokens


def main():
    # One thread: the order of additions, and so the last bits, do not depend on the machine.
    torch.set_num_threads(1)
    root = pathlib.Path(__file__).resolve().parent
    for folder in ("tiny-sdxl", "models", "tokenizers", "schedulers", "checkpoints", "expected",
                   "loras", "prompts"):
        shutil.rmtree(root / folder, ignore_errors=True)
    vocabulary = golden_tokenizer.make(root, root / "tiny-sdxl")
    golden_tokens.make(root)
    golden_models.make(root)
    golden_noise.make(root)
    golden_image.make(root)
    golden_schedulers.make(root)
    golden_pipeline.make(root, root / "tiny-sdxl", vocabulary)
    golden_pictures.make(root, root / "tiny-sdxl")
    golden_prompts.make(root, root / "tiny-sdxl")
    golden_lora.make(root, root / "tiny-sdxl")
    golden_checkpoints.make(root)


if __name__ == "__main__":
    main()
