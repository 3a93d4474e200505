"""The controls of the list: what the request says, and how diffusers is made to do the same.

A control has `settings`, the fields of the request (as in the engine's struct generation), and
a `pipeline`: which of diffusers' pipelines makes the picture. What else it takes is a function of
reference.py with the control's name.
"""

PROMPT = "a flaming obsidian sword, pixel art!"
NEGATIVE = "blurry, low quality"
WEIGHTED = "a (flaming:1.3) obsidian [sword], ((pixel) art:0.8)!"
WEIGHTED_NEGATIVE = "(blurry:1.4), low quality"
LONG = ", ".join(["a glowing purple potion in a round glass bottle", "cork stopper, sparkling",
                  "fantasy game icon", "an ancient wooden shield with iron rivets",
                  "isometric view, highly detailed, 4k", "on a dark background"] * 2)
LEARNED = "gemstyle"  # the textual inversion's word: its file's stem

GUIDED = {"guidance": 4.0}  # for kinds whose own guidance is off

CONTROLS = {
    "none": {},
    "negative": {"settings": {"negative_prompt": NEGATIVE} | GUIDED},
    "weights": {"settings": {"prompt": WEIGHTED, "negative_prompt": WEIGHTED_NEGATIVE} | GUIDED},
    "long_prompt": {"settings": {"prompt": LONG} | GUIDED},
    "clip_skip": {"settings": {"clip_skip": 1}},
    "interval": {"settings": {"guidance_start": 0.25, "guidance_end": 0.75} | GUIDED},
    "rescale": {"settings": {"guidance_rescale": 0.7} | GUIDED},
    "deep_cache": {"settings": {"cache_interval": 2, "cache_branch_id": 1}},
    "deep_cache_low": {"settings": {"cache_interval": 3, "cache_branch_id": 3} | GUIDED},
    "tome": {"settings": {"tome_ratio": 0.5} | GUIDED},
    "shortcuts": {"settings": {"cache_interval": 2, "cache_branch_id": 2, "tome_ratio": 0.3,
                               "guidance_start": 0.25, "guidance_end": 0.75} | GUIDED},
    "batch": {"pictures": 2},
    "img2img": {"pipeline": "img2img", "settings": {"strength": 0.8}},
    "inpaint": {"pipeline": "inpaint", "settings": {"strength": 1.0}},
    "mask_blur": {"pipeline": "inpaint", "settings": {"strength": 0.75, "mask_blur": 4}},
    "lora_kohya": {"settings": {"loras": [["kohya", 0.8]]}},
    "lora_peft": {"settings": {"loras": [["peft", 1.2]]}},
    "lora_two": {"settings": {"loras": [["kohya", 0.7], ["peft", -0.4]]}},
    "locon": {"settings": {"loras": [["locon", 0.9]]}},
    "embedding": {"settings": {"prompt": f"a sword, {LEARNED}, pixel art!"}},
    "tile_x": {"settings": {"tile_x": True}},
    "tile_y": {"settings": {"tile_y": True}},
    "tile_xy": {"settings": {"tile_x": True, "tile_y": True}},
    "banded": {"engine": {"banded": True}},
    "storage_f32": {"engine": {"storage": "f32"}},
    "storage_f16": {"engine": {"storage": "file"}},
    "storage_bf16": {"engine": {"storage": "file", "weights": "bf16"}},
}


def settings(name):
    return CONTROLS[name].get("settings", {})


def pipeline(name):
    return CONTROLS[name].get("pipeline", "txt2img")


def pictures(name):
    return CONTROLS[name].get("pictures", 1)


def engine_options(name):
    """What makes the engine work otherwise, and must not change the picture."""
    return CONTROLS[name].get("engine", {})
