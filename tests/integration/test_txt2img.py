"""txt2img as a user types it: what it writes, what it says, how it refuses.
Standard library only."""

import json
import struct
import subprocess
import zlib

import pytest

from support.checkpoint import write_checkpoint
from support.processes import SANITIZER_REPORT, TREE
from support.stack import BIN

MODEL = TREE / "tests/golden/tiny-sdxl"


def txt2img(*arguments, check=True):
    """Run it; every argument as text. Returns the completed process."""
    command = [BIN / "txt2img", *arguments]
    done = subprocess.run([str(part) for part in command], cwd=TREE, capture_output=True,
                          text=True, timeout=120, check=False)
    assert SANITIZER_REPORT.search(done.stderr) is None, done.stderr
    if check:
        assert done.returncode == 0, done.stderr
    return done


def chunks(path):
    """The chunks of a PNG file as (type, data), with their checksums checked."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, []
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        (checksum,) = struct.unpack(">I", data[at + 8 + length:at + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        found.append((kind.decode(), body))
        at += 12 + length
    assert found[-1][0] == "IEND"
    return found


def texts(path):
    """The tEXt and iTXt chunks as a dictionary."""
    found = {}
    for kind, body in chunks(path):
        keyword, _, rest = body.partition(b"\0")
        if kind == "tEXt":
            found[keyword.decode()] = rest.decode("ascii")
        elif kind == "iTXt":
            found[keyword.decode()] = rest[2:].split(b"\0", 2)[2].decode("utf-8")
    return found


def pixels(path):
    return b"".join(body for kind, body in chunks(path) if kind == "IDAT")


def safetensors(path):
    """Names, shapes and types of the tensors in a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def test_a_picture_says_how_to_make_it_again(tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    txt2img("--model", MODEL, "--prompt", "a sword, 剣", "--negative", "blurry", "--steps", 3,
            "--width", 64, "--height", 40, "--guidance", 4.5, "--scheduler", "ddim",
            "--output", first)
    assert struct.unpack(">II", chunks(first)[0][1][:8]) == (64, 40)
    found = texts(first)
    prompt, negative, settings = found["parameters"].split("\n")
    assert (prompt, negative) == ("a sword, 剣", "Negative prompt: blurry")
    said = dict(pair.split(": ", 1) for pair in settings.split(", "))
    assert said["Size"] == "64x40" and said["Model"] == "tiny-sdxl"
    assert len(found["digest"]) == 64
    txt2img("--model", MODEL, "--prompt", prompt, "--negative", "blurry", "--steps", said["Steps"],
            "--width", 64, "--height", 40, "--guidance", said["CFG scale"], "--scheduler",
            said["Sampler"], "--seed", said["Seed"], "--output", second)
    assert pixels(first) == pixels(second)


def test_a_picture_with_loras_says_how_to_make_it_again(tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    loras = TREE / "tests/golden/loras"
    common = ("--model", MODEL, "--steps", 1, "--width", 64, "--height", 64, "--seed", 3)
    txt2img(*common, "--prompt", "a sword <lora:tucker:0.5>", "--lora-folder", loras,
            "--lora", "kohya:0.2:0.8", "--lora", "peft:-1", "--output", first)
    prompt, settings = texts(first)["parameters"].split("\n")
    assert prompt == "a sword <lora:tucker:0.5> <lora:kohya:0.2:0.8> <lora:peft:-1>"
    hashes = settings.split('Lora hashes: "')[1].rstrip('"').split(", ")
    assert [pair.split(": ")[0] for pair in hashes] == ["kohya", "peft", "tucker"]
    txt2img(*common, "--prompt", "a sword ", "--lora", loras / "kohya.safetensors:0.2:0.8",
            "--lora", loras / "peft.safetensors:-1",
            "--lora", loras / "tucker.safetensors:0.5", "--output", second)
    assert pixels(second) == pixels(first)
    plain = tmp_path / "plain.png"
    txt2img(*common, "--prompt", "a sword", "--output", plain)
    assert pixels(plain) != pixels(first)


def test_a_batch_is_the_seeds_that_follow(tmp_path):
    common = ["--model", MODEL, "--prompt", "a ring", "--steps", 2, "--width", 32, "--height", 32]
    txt2img(*common, "--seed", 41, "--batch", 2, "--output", tmp_path / "ring.png")
    txt2img(*common, "--seed", 42, "--output", tmp_path / "alone.png")
    assert "Seed: 41" in texts(tmp_path / "ring-1.png")["parameters"]
    assert pixels(tmp_path / "ring-2.png") == pixels(tmp_path / "alone.png")


def test_a_deadline_gives_a_picture_up_or_takes_what_there_is(tmp_path):
    common = ["--model", MODEL, "--prompt", "a ring", "--steps", 500, "--deadline", 0.001,
              "--output", tmp_path / "ring.png"]
    done = txt2img(*common, check=False)
    assert done.returncode == 1 and "deadline" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "ring.png").exists()
    done = txt2img(*common, "--partial")
    assert "the deadline cut it short after step 1\n" in done.stderr
    assert texts(tmp_path / "ring.png")["parameters"].endswith(", Steps done: 1")


def test_a_dump_holds_every_stage_in_torchs_layout(tmp_path):
    txt2img("--model", MODEL, "--prompt", "a ring", "--steps", 2, "--width", 64, "--height", 32,
            "--dump", tmp_path / "dump.safetensors", "--output", tmp_path / "ring.png")
    shapes = {name: entry["shape"] for name, entry in
              safetensors(tmp_path / "dump.safetensors").items()}
    latent = shapes["latents.1"]
    assert latent[:2] == [1, 4] and latent[2] * 2 == latent[3]
    for name in ("noise_pred.0", "noise_pred_uncond.1", "noise_pred_text.1", "latents.0"):
        assert shapes[name] == latent
    assert shapes["image"] == [1, 3, 32, 64] and shapes["timesteps"] == [2]
    assert shapes["prompt_embeds"] == shapes["negative_prompt_embeds"]
    assert shapes["pooled_prompt_embeds"] == shapes["negative_pooled_prompt_embeds"]


def test_profile_says_which_part_kind_and_shape_took_the_time(tmp_path):
    done = txt2img("--model", MODEL, "--prompt", "a ring", "--steps", 2, "--profile", "--output",
                   tmp_path / "a.png")
    assert done.returncode == 0
    parts, kinds, shapes = done.stdout.split("\n\n")[1:]
    for name in ("text_encoder", "unet.down_blocks.0.resnets.0", "vae.decoder.conv_out", "all"):
        assert f"\n{name} " in parts
    assert [line.split()[0] for line in kinds.splitlines()[1:]] == [
        "conv", "linear", "attention", "norm", "other"]
    assert "conv" in shapes and "GFLOP/s" in done.stdout


def test_timings_are_one_json_line_on_stdout(tmp_path):
    done = txt2img("--model", MODEL, "--prompt", "a ring", "--steps", 2, "--timings", "--output",
                   tmp_path / "ring.png")
    (line,) = done.stdout.splitlines()
    timings = json.loads(line)
    assert timings["flop"] > 0 and timings["rss_peak_bytes"] > 0
    assert timings["total_seconds"] >= timings["denoise_seconds"] > 0
    assert "step 2 of 2" in done.stderr and "\r" not in done.stderr


def test_weights_that_were_packed_are_there_for_the_next_start(tmp_path):
    cache = tmp_path / "cache"

    def draw(name, *options):
        done = txt2img("--model", MODEL, "--prompt", "a ring", "--steps", 1, "--width", 64,
                       "--height", 64, "--seed", 3, "--storage", "f32", *options,
                       "--output", tmp_path / name)
        return done.stderr.splitlines()[0], pixels(tmp_path / name)

    said, picture = draw("none.png", "--weight-cache", "")
    assert "packed" not in said
    said, first = draw("first.png", "--weight-cache", cache)
    assert said.startswith(f"packed weights are being written to {cache}/")
    file, = cache.glob("*.packed")
    said, second = draw("second.png", "--weight-cache", cache)
    assert said == f"packed weights are read from {file}"
    file.write_bytes(file.read_bytes()[:-1])
    said, third = draw("third.png", "--weight-cache", cache)
    assert said == f"packed weights are being written to {file}"
    said, fourth = draw("fourth.png", "--weight-cache", "/dev/null/cache")
    assert said == "packed weights are not kept: /dev/null/cache: Not a directory"
    assert picture == first == second == third == fourth


def test_a_single_file_checkpoint_is_a_model(tmp_path):
    model = write_checkpoint(tmp_path / "my model.safetensors")
    out = tmp_path / "picture.png"
    txt2img("--model", model, "--prompt", "a ring", "--steps", 1, "--width", 64, "--height", 64,
            "--output", out)
    assert chunks(out)[0] == ("IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    assert "Model: my model" in texts(out)["parameters"]


def test_a_rounded_picture_says_its_precision_and_another_weights_digest(tmp_path):
    exact, rounded = tmp_path / "exact.png", tmp_path / "rounded.png"
    small = ["--model", MODEL, "--prompt", "x", "--width", 64, "--height", 64, "--steps", 2,
             "--seed", 3]
    txt2img(*small, "--output", exact)
    done = txt2img(*small, "--output", rounded, "--precision", "int8", "--force-precision",
                   check=False)
    if "no instructions" in done.stderr:
        pytest.skip("this processor has no instructions for int8")
    assert done.returncode == 0, done.stderr
    said, before = texts(rounded)["parameters"], texts(exact)["parameters"]
    assert "Precision: int8" in said and "Precision" not in before
    digest = said.partition("Weights digest: ")[2].partition(",")[0]
    assert len(digest) == 64 and digest not in before


@pytest.mark.parametrize("arguments, code, message", [
    ([], 2, "--model is required"),
    (["--steps", "many"], 2, "--steps: expected a whole number"),
    (["--seed", "-1"], 2, "--seed: expected a whole number"),
    (["--precision", "f8"], 2, "--precision: expected f32, f16, bf16 or int8"),
    (["--lora", "a:much"], 2, "--lora: expected FILE.safetensors or a name"),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--lora", "gone"], 1,
     'there is no "gone"'),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--partial"], 2,
     "--partial says what --deadline does"),
    (["stray"], 2, '"stray" is not an option'),
    (["--model", "/nonexistent", "--prompt", "x", "--output", "x.png"], 1,
     "/nonexistent/model_index.json"),
    (["--model", __file__, "--prompt", "x", "--output", "x.png"], 1,
     "not a safetensors file"),
    # Said before the picture is drawn, so nothing else is.
    (["--model", MODEL, "--prompt", "x", "--output", "/nonexistent/x.png", "--steps", 1], 1,
     "/nonexistent/x.png: cannot create"),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--dump", "/tmp"], 1,
     "/tmp: cannot create: Is a directory"),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--seeds", "1,2", "--batch", 5], 2,
     "--batch counts seeds up and --seeds lists them: give one"),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--seeds", "1,2", "--seed", 5], 2,
     "--seed is one picture's and --seeds lists them: give one"),
    (["--model", MODEL, "--estimate", "--width", 1], 1, "width: 1 is not a multiple of"),
    (["--model", MODEL, "--estimate", "--clip-skip", 99], 1, "clip_skip: 99 is not from 0 to"),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--memory-limit", 1], 1,
     "and there are 0.00: no picture fits"),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--width", 33], 1,
     "width: 33 is not a multiple of"),
    (["--model", MODEL, "--prompt", "x", "--output", "x.png", "--latents", "/nonexistent"], 1,
     "/nonexistent"),
])
def test_a_wrong_call_gets_one_clear_line(arguments, code, message):
    done = txt2img(*arguments, check=False)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert message in line
    assert done.stdout == ""


def test_help_and_version():
    assert "--negative TEXT" in txt2img("--help").stdout
    assert txt2img("--version").stdout.startswith("txt2img ")


def write_png(path, width, height, pixel):
    """A gray PNG of pixel(x, y)."""
    rows = b"".join(b"\0" + bytes(pixel(x, y) for x in range(width)) for y in range(height))

    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body +
                struct.pack(">I", zlib.crc32(kind + body)))

    path.write_bytes(b"\x89PNG\r\n\x1a\n" +
                     chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_a_picture_and_a_mask_to_start_from(tmp_path):
    picture, mask, preview = tmp_path / "in.png", tmp_path / "mask.png", tmp_path / "preview.png"
    write_png(picture, 50, 41, lambda x, y: (x * 5 + y) % 256)
    write_png(mask, 20, 20, lambda x, y: 255 if x > 9 else 0)
    arguments = ["--model", MODEL, "--prompt", "an axe", "--steps", 4, "--init-image", picture]
    txt2img(*arguments, "--mask", mask, "--mask-blur", 2, "--strength", 0.75, "--seeds", "4,9",
            "--preview", preview, "--tile", "x", "--output", tmp_path / "out.png")
    first, second = tmp_path / "out-1.png", tmp_path / "out-2.png"
    assert size(first) == size(second) == (48, 40)  # the picture's, down to multiples of 8
    assert size(preview) == (48, 40)
    assert pixels(first) != pixels(second)
    assert texts(second)["parameters"].endswith(
        "Denoising strength: 0.75, Mask blur: 2, Tile X: True")
    assert ", Seed: 9," in texts(second)["parameters"]
    # A seed's picture is the same without the others of its batch, and without previews.
    txt2img(*arguments, "--mask", mask, "--mask-blur", 2, "--strength", 0.75, "--seed", 9,
            "--tile", "x", "--output", tmp_path / "alone.png")
    assert pixels(tmp_path / "alone.png") == pixels(second)


def test_what_is_no_picture_to_start_from_is_refused(tmp_path):
    picture = tmp_path / "in.png"
    picture.write_bytes(b"GIF89a")
    arguments = ["--model", MODEL, "--prompt", "an axe", "--output", tmp_path / "out.png"]
    refused = txt2img(*arguments, "--init-image", picture, check=False)
    assert refused.returncode == 1
    assert f"{picture}: not a PNG file" in refused.stderr
    refused = txt2img(*arguments, "--init-image", tmp_path / "none.png", check=False)
    assert "none.png: cannot open" in refused.stderr
    refused = txt2img(*arguments, "--strength", 0.5, check=False)
    assert "strength: means nothing without an init_image" in refused.stderr
    refused = txt2img(*arguments, "--seeds", "1,,2", check=False)
    assert refused.returncode == 2
    assert not (tmp_path / "out.png").exists()
