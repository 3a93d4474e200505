"""Every control of an order reaches the engine: through HTTP, Kafka and a worker comes the picture
that txt2img draws with the same options. (That those are right, tests/parity shows.)"""

import base64
import io
import subprocess
import uuid

import pytest
from PIL import Image as Pillow

from support.processes import TREE
from support.stack import BIN, model_folder

LORAS = TREE / "tests/golden/loras"
STACK = {"redis": None, "settings": {"CDN_BASE_URL": "https://cdn.example.com"},
         "service_settings": {"worker": {"LORA_FOLDER": LORAS}}}
SIZE = {"width": 64, "height": 64}
PROMPT = "a (flaming:1.2) sword"

# fields of the order -> options of txt2img
CONTROLS = {
    "scheduler": ({"scheduler": "dpmpp_2m"}, ["--scheduler", "dpmpp_2m"]),
    "sigmas": ({"scheduler": "euler", "sigmas": "karras"},
               ["--scheduler", "euler", "--sigmas", "karras"]),
    "timestep_spacing": ({"timestep_spacing": "trailing"}, ["--timestep-spacing", "trailing"]),
    "eta": ({"scheduler": "ddim", "eta": 0.8}, ["--scheduler", "ddim", "--eta", "0.8"]),
    "guidance_rescale": ({"guidance_rescale": 0.7}, ["--guidance-rescale", "0.7"]),
    "guidance_start": ({"guidance_start": 0.4}, ["--guidance-start", "0.4"]),
    "guidance_end": ({"guidance_end": 0.5}, ["--guidance-end", "0.5"]),
    "cache_interval": ({"cache_interval": 2}, ["--cache-interval", "2"]),
    "cache_branch_id": ({"cache_interval": 2, "cache_branch_id": 4},
                        ["--cache-interval", "2", "--cache-branch-id", "4"]),
    "tome_ratio": ({"tome_ratio": 0.5}, ["--tome-ratio", "0.5"]),
    "clip_skip": ({"clip_skip": 1}, ["--clip-skip", "1"]),
    "tile_x": ({"tile": "x"}, ["--tile", "x"]),
    "tile_xy": ({"tile": "xy"}, ["--tile", "xy"]),
    "lora": ({"loras": [{"name": "peft", "weight": 0.7}]},
             ["--lora-folder", LORAS, "--lora", "peft:0.7"]),
    "two_loras": ({"loras": [{"name": "peft", "weight": 0.7}, {"name": "kohya", "weight": -0.4}]},
                  ["--lora-folder", LORAS, "--lora", "peft:0.7", "--lora", "kohya:-0.4"]),
}


def pixels(png):
    return Pillow.open(io.BytesIO(png)).convert("RGB").tobytes()


def drawn(stack, job):
    key = job["url"].removeprefix("https://cdn.example.com/")
    return stack.s3.objects()[key].body


def by_hand(folder, options, prompt=PROMPT, size="64"):
    path = folder / f"{uuid.uuid4().hex}.png"
    subprocess.run([BIN / "txt2img", "--model", model_folder(), "--prompt", prompt, "--seed", "7",
                    "--width", size, "--height", size, "--steps", "4", "--threads", "1",
                    "--output", path, *map(str, options)], check=True, capture_output=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The picture without any control."""
    return pixels(by_hand(tmp_path_factory.mktemp("plain"), []))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_changes_the_picture_as_txt2img_does(stack, client, tmp_path, plain, name):
    fields, options = CONTROLS[name]
    job = client.draw(PROMPT, seed=7, steps=4, **SIZE, **fields)
    expected = by_hand(tmp_path, options)
    assert pixels(drawn(stack, job)) == pixels(expected)
    assert pixels(expected) != plain


def test_the_picture_says_how_it_was_made(stack, client, tmp_path):
    fields = {"scheduler": "dpmpp_2m", "sigmas": "karras", "clip_skip": 1, "tile": "xy",
              "guidance_rescale": 0.5, "loras": [{"name": "peft", "weight": 0.7}]}
    job = client.draw(PROMPT, seed=7, steps=4, negative_prompt="blurry", **SIZE, **fields)
    text = Pillow.open(io.BytesIO(drawn(stack, job))).text["parameters"]
    for part in ("Sampler: DPM++ 2M", "Schedule type: Karras", "Clip skip: 2", "Tiling: True",
                 "<lora:peft:0.7>", "Negative prompt: blurry", "Seed: 7"):
        assert part in text, text


def test_a_prompts_own_lora_is_found(stack, client, tmp_path):
    prompt = "a sword <lora:peft:0.7>"
    job = client.draw(prompt, seed=7, steps=4, **SIZE)
    assert pixels(drawn(stack, job)) == pixels(
        by_hand(tmp_path, ["--lora-folder", LORAS], prompt=prompt))


def test_an_unknown_lora_is_refused_at_the_door(client):
    answer = client.post({"prompt": "a sword", "loras": [{"name": "none"}], **SIZE})
    assert answer.status_code == 422
    assert answer.json()["error"]["details"][0]["field"] == "loras[0].name"


# ---- Pictures to start from -----------------------------------------------------------------

def gradient(size=64):
    picture = Pillow.new("RGB", (size, size))
    picture.putdata([(4 * x % 256, 4 * y % 256, 128) for y in range(size) for x in range(size)])
    return picture


def mask(size=64):
    picture = Pillow.new("L", (size, size), 0)
    picture.paste(255, (size // 4, size // 4, 3 * size // 4, 3 * size // 4))
    return picture


def give(client, picture, path):
    picture.save(path)
    answer = client.give(path.read_bytes())
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_image_to_image(stack, client, tmp_path, plain):
    given = give(client, gradient(), tmp_path / "init.png")
    job = client.draw(PROMPT, seed=7, steps=4, init_image=given, strength=0.5)
    expected = pixels(by_hand(tmp_path, ["--init-image", tmp_path / "init.png",
                                         "--strength", "0.5"]))
    assert pixels(drawn(stack, job)) == expected
    assert expected != plain


def test_inpainting(stack, client, tmp_path):
    given = give(client, gradient(), tmp_path / "init.png")
    where = give(client, mask(), tmp_path / "mask.png")
    job = client.draw(PROMPT, seed=7, steps=4, init_image=given, mask_image=where, strength=0.75,
                      mask_blur=2)
    assert pixels(drawn(stack, job)) == pixels(by_hand(
        tmp_path, ["--init-image", tmp_path / "init.png", "--mask", tmp_path / "mask.png",
                   "--strength", "0.75", "--mask-blur", "2"]))


def test_a_picture_of_another_size_is_fitted(stack, client, tmp_path):
    given = give(client, gradient(96), tmp_path / "init.png")
    job = client.draw(PROMPT, seed=7, steps=4, init_image=given, strength=0.5, **SIZE)
    assert Pillow.open(io.BytesIO(drawn(stack, job))).size == (64, 64)


def test_a_damaged_picture_fails_its_job_and_says_so(client, tmp_path):
    gradient().save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    given = client.give(whole[: len(whole) // 2]).json()["id"]
    job = client.draw_in_vain(PROMPT, init_image=given, **SIZE)
    assert job["error"]["code"] in ("engine_error", "invalid_input")
    assert "PNG" in job["error"]["message"]


def test_previews_come_with_the_steps(client):
    job = client.submit(PROMPT, steps=300, preview=True, cache="bypass", **SIZE)
    shown = []
    for _, name, data in client.events(job["id"]):
        if name == "preview":
            shown.append(data)
    assert client.wait(job["id"])["state"] == "succeeded"
    assert len(shown) >= 3
    for data in shown:
        picture = Pillow.open(io.BytesIO(base64.b64decode(data["png"])))
        assert max(picture.size) <= 128
        assert 1 <= data["step"] <= data["steps"] == 300


def test_without_asking_no_previews_are_sent(client):
    job = client.submit(PROMPT, steps=50, cache="bypass", **SIZE)
    assert "preview" not in {name for _, name, _ in client.events(job["id"])}
