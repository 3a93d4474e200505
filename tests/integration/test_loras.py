"""LoRAs of a worker's folder: told of, ordered by name or in the prompt, part of a picture."""

import io

from PIL import Image as Pillow

from support.processes import TREE, wait_until

STACK = {"s3": None,
         "service_settings": {"worker": {"LORA_FOLDER": TREE / "tests/golden/loras"}}}
ORDER = {"width": 64, "height": 64, "steps": 1, "seed": 5}


def lora(name, weight=1):
    return {"loras": [{"name": name, "weight": weight}]}


def picture(client, job):
    return Pillow.open(io.BytesIO(client.download(job["images"][0]["url"])))


def told(client):
    """The LoRAs of the one model, by name, once its worker has announced itself."""
    wait_until(lambda: client.models()["models"], 30, None)
    return {each["name"]: each["digest"] for each in client.models()["models"][0]["loras"]}


def test_the_loras_there_are_stand_in_the_list_of_models(client):
    loras = told(client)
    assert sorted(loras) == ["diffusers", "kohya", "kohya-original", "peft", "processors",
                             "tucker"]
    assert all(len(digest) == 64 for digest in loras.values())


def test_a_lora_changes_the_picture_and_is_told_in_it(client):
    plain = picture(client, client.draw("a sword", **ORDER))
    changed = picture(client, client.draw("a sword", **ORDER, **lora("kohya", 0.8)))
    assert plain.tobytes() != changed.tobytes()
    assert changed.info["parameters"].startswith("a sword <lora:kohya:0.8>\n")
    assert 'Lora hashes: "kohya: ' in changed.info["parameters"]
    tagged = picture(client, client.draw("a sword<lora:kohya:0.8>", **ORDER))
    assert tagged.tobytes() == changed.tobytes()
    assert tagged.info["parameters"].startswith("a sword<lora:kohya:0.8>\n")


def test_weights_and_names_are_part_of_what_a_picture_is(client):
    first = client.draw("a shield", **ORDER, **lora("peft", 0.5))
    names = {first["images"][0]["content_hash"]}
    for other in (lora("peft", 0.6), lora("kohya", 0.5), {}):
        names.add(client.draw("a shield", **ORDER, **other)["images"][0]["content_hash"])
    assert len(names) == 4
    again = client.draw("a shield", **ORDER, **lora("peft", 0.5))
    assert again["images"][0]["content_hash"] == first["images"][0]["content_hash"]


def test_an_unknown_lora_is_refused_before_anything_is_queued(client):
    told(client)
    for body in ({"prompt": "a", **lora("gone")}, {"prompt": "a <lora:gone:1>"}):
        answer = client.post({**ORDER, **body})
        assert answer.status_code in (400, 422), answer.text
        assert "gone" in answer.text
