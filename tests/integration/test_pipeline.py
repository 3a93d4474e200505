"""From a prompt to a picture through Kafka, Redis and S3, as a client sees it."""

import io
import subprocess
import time
import uuid

import pytest
from PIL import Image as Pillow

from support import messages
from support.processes import wait_until
from support.stack import BIN, model_folder

CDN = "https://cdn.example.com/art"
STACK = {"settings": {"CDN_BASE_URL": CDN}, "workers": 2}
SMALL = {"width": 64, "height": 64, "steps": 2}
LONG = {"width": 64, "height": 64, "steps": 900, "cache": "bypass"}


def pixels(png):
    picture = Pillow.open(io.BytesIO(png))
    picture.load()
    return picture.convert("RGB")


def stored_png(stack, image):
    key = image["url"][len(CDN) + 1:]
    return stack.s3.objects()[key].body


def test_a_prompt_becomes_a_picture(stack, client):
    job = client.draw("a flaming obsidian sword", seed=11, **SMALL)
    assert job["url"].startswith(f"{CDN}/")
    assert job["url"] == job["images"][0]["url"]
    assert job["seed"] == 11
    png = stored_png(stack, job["images"][0])
    assert pixels(png).size == (64, 64)
    assert len(png) == job["images"][0]["bytes"]
    stored = stack.s3.objects()[job["url"][len(CDN) + 1:]]
    assert stored.content_type == "image/png"
    assert stored.cache_control == "public, max-age=31536000, immutable"


def test_it_is_the_picture_that_txt2img_draws(stack, client, tmp_path):
    request = {"seed": 4242, "width": 64, "height": 64, "steps": 3, "guidance_scale": 4.5}
    job = client.draw("a golden ring", negative_prompt="dark", **request)
    subprocess.run([BIN / "txt2img", "--model", model_folder(), "--prompt", "a golden ring",
                    "--negative", "dark", "--seed", "4242", "--width", "64", "--height", "64",
                    "--steps", "3", "--guidance", "4.5", "--threads", "1",
                    "--output", tmp_path / "same.png"], check=True, capture_output=True)
    ours = pixels(stored_png(stack, job["images"][0]))
    assert ours.tobytes() == pixels((tmp_path / "same.png").read_bytes()).tobytes()


def test_another_seed_is_another_picture(stack, client):
    first = client.draw("a crown", seed=1, **SMALL)
    second = client.draw("a crown", seed=2, **SMALL)
    assert first["url"] != second["url"]
    assert (pixels(stored_png(stack, first["images"][0])).tobytes() !=
            pixels(stored_png(stack, second["images"][0])).tobytes())


def test_without_a_seed_one_is_chosen_and_told(client):
    first = client.draw("a key", **SMALL)
    second = client.draw("a key", **SMALL)
    assert first["seed"] != second["seed"]


def test_three_pictures_of_one_order_have_seeds_in_a_row(stack, client):
    job = client.draw("three coins", seed=100, n=3, **SMALL)
    assert [image["seed"] for image in job["images"]] == [100, 101, 102]
    assert [image["index"] for image in job["images"]] == [0, 1, 2]
    drawn = [pixels(stored_png(stack, image)).tobytes() for image in job["images"]]
    assert len(set(drawn)) == 3
    single = client.draw("three coins", seed=101, cache="bypass", **SMALL)
    assert pixels(stored_png(stack, single["images"][0])).tobytes() == drawn[1]


def test_the_same_order_again_is_answered_from_the_cache(stack, client):
    first = client.draw("a cached chest", seed=5, **SMALL)
    requests_before = len(stack.topics.records("requests"))
    again = client.post({"prompt": "a cached chest", "seed": 5, **SMALL}).json()
    again = client.wait(again["id"], 5)
    assert again["state"] == "succeeded"
    assert again["id"] != first["id"]
    assert again["url"] == first["url"]
    assert len(stack.topics.records("requests")) == requests_before


def test_bypassing_the_cache_draws_anew(stack, client):
    first = client.draw("a bypassed chest", seed=5, **SMALL)
    requests_before = len(stack.topics.records("requests"))
    again = client.draw("a bypassed chest", seed=5, cache="bypass", **SMALL)
    assert again["url"] == first["url"]
    assert len(stack.topics.records("requests")) == requests_before + 1


def test_a_job_costs_at_most_two_operations_of_redis(client, redis):
    def operations():
        commands = redis.client.info("commandstats")
        return sum(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in
                   ("get", "set", "setex", "mget", "mset", "incr", "del", "expire", "exists"))
    before = operations()
    for seed in range(5):
        client.draw("a counted gem", seed=seed, **SMALL)
    assert operations() - before <= 10


def test_the_time_of_every_stage_is_told(client):
    job = client.draw("a timed potion", seed=3, width=128, height=128, steps=20)
    timings = job["timings"]
    for stage in ("denoise_ms", "decode_ms", "total_ms"):
        assert timings[stage] > 0, timings
    spent = sum(value for stage, value in timings.items() if stage != "total_ms")
    assert spent <= timings["total_ms"] + 50, timings
    assert job["attempts"] == 1


def test_events_come_in_order_and_end_with_the_picture(client):
    job = client.submit("an eventful amulet", seed=8, width=64, height=64, steps=12)
    events = list(client.events(job["id"]))
    names = [name for _, name, _ in events]
    order = ["accepted", "queued", "dispatched", "started", "step", "rendered", "uploaded", "done"]
    ranks = [order.index(name) for name in names]
    assert ranks == sorted(ranks), names
    for needed in ("accepted", "queued", "dispatched", "started", "uploaded", "done"):
        assert names.count(needed) == 1, names
    steps = [data["step"] for _, name, data in events if name == "step"]
    assert steps == sorted(set(steps)) and steps[-1] <= 12, steps
    assert events[-1][2]["state"] == "succeeded"
    assert events[-1][2]["url"].startswith(CDN)


def test_events_go_on_after_the_last_one_that_was_seen(client):
    job = client.submit("a resumed scroll", seed=8, width=64, height=64, steps=12)
    events = list(client.events(job["id"]))
    seen = events[2][0]
    assert [e[0] for e in client.events(job["id"], last_event_id=seen)][-1] == events[-1][0]
    resumed = [e[1] for e in client.events(job["id"], last_event_id=seen)]
    assert "accepted" not in resumed
    assert resumed[-1] == "done"


def test_waiting_for_the_answer_brings_the_picture(client):
    answer = client.post({"prompt": "a patient wand", "seed": 1, **SMALL}, Prefer="wait=30")
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "succeeded"


def test_a_running_job_is_cancelled_between_two_steps(stack, client):
    job = client.submit("an endless staff", **LONG)
    client.wait_for(job["id"], "running")
    assert client.cancel(job["id"]).status_code in (200, 202, 204)
    began = time.monotonic()
    ended = client.wait(job["id"], 10)
    assert ended["state"] == "cancelled"
    assert time.monotonic() - began < 5
    assert stack.check_one_end([job["id"]])
    client.draw("the next job", seed=1, **SMALL)


def test_a_waiting_job_is_cancelled_at_once(client):
    running = [client.submit(f"a busy worker {i}", **LONG)["id"] for i in range(2)]
    for job_id in running:
        client.wait_for(job_id, "running")
    waiting = client.submit("a waiting bow", cache="bypass", **SMALL)["id"]
    client.wait_for(waiting, "queued")
    client.cancel(waiting)
    assert client.wait(waiting, 5)["state"] == "cancelled"
    for job_id in running:
        assert client.get(job_id)["state"] == "running"
        client.cancel(job_id)
        assert client.wait(job_id, 10)["state"] == "cancelled"
    assert client.get(waiting)["images"][0].get("url") is None


def test_a_job_past_its_deadline_expires(client):
    running = [client.submit(f"a busy worker {i}", **LONG)["id"] for i in range(2)]
    for job_id in running:
        client.wait_for(job_id, "running")
    late = client.submit("a late boot", deadline=1, cache="bypass", **SMALL)["id"]
    assert client.wait(late, 15)["state"] == "expired"
    for job_id in running:
        client.cancel(job_id)
        client.wait(job_id, 10)


def test_two_workers_share_the_load(stack, client):
    jobs = [client.submit("a shared shield", seed=seed, width=64, height=64, steps=60,
                          cache="bypass")["id"] for seed in range(6)]
    for job_id in jobs:
        assert client.wait(job_id, 60)["state"] == "succeeded"
    workers = {status.worker_id for job_id in jobs for status in stack.topics.statuses(job_id)
               if status.state == messages.State.STATE_RUNNING}
    assert workers == {"worker1", "worker2"}


def test_the_trace_of_the_request_reaches_the_end(stack, client):
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = client.post({"prompt": "a traced helmet", "seed": 1, **SMALL},
                         traceparent=f"00-{trace}-b7ad6b7169203331-01")
    job = client.wait(answer.json()["id"])
    traces = {status.envelope.traceparent.split("-")[1]
              for status in stack.topics.statuses(job["id"])}
    assert traces == {trace}


def job_for(model, **fields):
    """A job as a gateway writes it, for what a gateway would not accept."""
    job = messages.Job(key_id="tests", accepted_ms=int(time.time() * 1000))
    job.envelope.job_id = str(uuid.uuid4())
    job.generation.CopyFrom(messages.Generation(prompt="x", width=64, height=64, steps=2,
                                                guidance_scale=5, model=model, n=1))
    for name, value in fields.items():
        setattr(job.generation, name, value)
    job.images.add(seed=0, content_hash="0" * 64, width=64, height=64)
    return job


def test_a_job_that_no_worker_can_do_fails_at_once(stack, client):
    model = model_folder().name
    cases = [(job_for("no-such-model"), "no_capacity"),
             (job_for(model, width=8192), "size_not_served"),
             (job_for(model, steps=100000), "steps_not_served"),
             (job_for(model, scheduler="no-such-scheduler"), "scheduler_not_served")]
    for job, _ in cases:
        stack.topics.send("requests", job)
    for job, reason in cases:
        ended = wait_until(lambda: [s for s in stack.topics.statuses(job.envelope.job_id)
                                    if s.state >= messages.TERMINAL], 10)
        assert ended[0].state == messages.State.STATE_FAILED
        assert ended[0].reason == reason
        assert ended[0].message
    client.draw("still at work", seed=1, **SMALL)


@pytest.mark.parametrize("topic", [
    "requests", "queue.default.interactive", "queue.default.batch", "jobs.default", "results",
    "status", "hits", "progress", "workers", "control"])
def test_what_is_no_message_stops_nobody(stack, client, topic):
    letters_before = len(stack.topics.dead_letters())
    payloads = (b"no protobuf message", b"\xff" * 300, b"\x0a\x03abc", None)
    payloads = [b"no protobuf message", b"\xff" * 300, b"\x0a\x03abc", None]
    keys = [str(uuid.uuid4()), None] if topic != "workers" else [str(uuid.uuid4())]  # compacted
    junk = [(payload, key) for payload in payloads for key in keys]
    for payload, key in junk:
        stack.topics.write(topic, payload, key)
    job = client.draw("a sword in spite of all", cache="bypass", seed=2, **SMALL)
    assert job["attempts"] == 1
    consumed = topic not in ("status", "hits", "progress", "workers", "control")
    if consumed:
        wait_until(lambda: len(stack.topics.dead_letters()) >= letters_before + len(junk), 15,
                   lambda: pytest.fail(f"only {len(stack.topics.dead_letters()) - letters_before} "
                                       f"of {len(junk)} records of {topic} in deadletter"))
        for letter in stack.topics.dead_letters()[letters_before:]:
            assert letter.reason == "undecodable"
    for service in stack.services.values():
        assert service.is_running() and service.is_ready()
