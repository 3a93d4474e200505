"""Pictures to start from: given once over HTTP, named by orders, read by workers from Kafka."""

import hashlib
import io

import requests
from PIL import Image as Pillow

from support.gateway import Gateway
from support.processes import wait_until

STACK = {"settings": {"HTTP_INPUT_MAX": "256KiB"}}
SMALL = {"width": 64, "height": 64, "steps": 2}


def png(width=64, height=64, colour=(200, 40, 40)):
    out = io.BytesIO()
    Pillow.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


def test_a_picture_gets_an_id_that_says_what_it_is(client):
    picture = png(80, 48)
    answer = client.give(picture)
    assert answer.status_code == 201
    told = answer.json()
    assert (told["width"], told["height"], told["bytes"]) == (80, 48, len(picture))
    assert told["sha256"] == hashlib.sha256(picture).hexdigest()
    assert told["id"].startswith("input-") and told["id"].endswith(told["sha256"])


def test_what_is_no_picture_is_refused(client, stack):
    assert client.give(png(), "image/jpeg").status_code == 415
    assert client.give(b"GIF89a" + bytes(100)).status_code == 422
    assert client.give(b"").status_code == 422
    assert client.give(png()[:20]).status_code == 422
    huge = png()[:16] + (100000).to_bytes(4, "big") * 2 + png()[24:]
    answer = client.give(huge)
    assert answer.status_code == 422
    assert "100000" in answer.json()["error"]["message"]
    assert client.give(png() + bytes(300_000)).status_code == 413
    url = f"http://127.0.0.1:{stack.gateway.port('http')}/v1/inputs"
    assert requests.post(url, data=png(), headers={"Content-Type": "image/png"},
                         timeout=10).status_code == 401


def test_an_order_that_names_what_is_not_there_fails_and_says_so(client):
    told = client.give(png()).json()
    partition, offset, rest = told["id"].removeprefix("input-").split("-", 2)
    for forged in (f"input-{partition}-{int(offset) + 1000}-{rest}", f"input-77-{offset}-{rest}"):
        job = client.draw_in_vain("a sword", init_image=forged, **SMALL)
        assert job["error"]["code"] == "input_expired"


def test_an_order_that_names_other_bytes_fails(client):
    told = client.give(png()).json()
    forged = told["id"].replace(told["sha256"], "0" * 64)
    job = client.draw_in_vain("a sword", init_image=forged, **SMALL)
    assert job["error"]["code"] == "invalid_input"
    assert "SHA-256" in job["error"]["message"]


def test_another_keys_picture_is_not_there(client, stack):
    other = "another-key-of-these-tests"
    with open(stack.folder / "api.keys", "a", encoding="utf-8") as keys:
        keys.write(f"other:{hashlib.sha256(other.encode()).hexdigest()}\n")
    stranger = Gateway(client.url, other)
    wait_until(lambda: stranger.give(png()).status_code == 201, 10, None)
    order = {"seed": 3, "init_image": client.give(png()).json()["id"], **SMALL}
    client.draw("a sword", **order)  # which no stranger gets from the cache
    job = stranger.draw_in_vain("a sword", **order)
    assert job["error"]["code"] == "invalid_input"
    assert "no such picture" in job["error"]["message"]
    assert client.draw("a sword", **order)["timings"]["denoise_ms"] == 0  # but its owner does
