"""Any gateway answers for any job: it knows what is on the topics, and nothing else."""

import hashlib
import json
import threading
import time
import uuid

import pytest

from support import messages
from support.gateway import Gateway
from support.processes import BUILD, wait_until

SMALL = {"width": 64, "height": 64, "steps": 2}
STACK = {"worker_binary": BUILD / "test/bench/zero_worker", "redis": None,
         "services": ["router", "worker1", "uploader", "gateway", "gateway2"],
         "service_settings": {"worker": {"STEP_TIME": "50ms"}}}


@pytest.fixture
def both(stack):
    """A client of each gateway."""
    return [Gateway(f"http://127.0.0.1:{stack.services[name].port('http')}", stack.key)
            for name in ("gateway", "gateway2")]


def same(one, other):
    """But for what depends on who was asked and when (progress may be lost on its way)."""
    def clean(job):
        return {key: value for key, value in job.items()
                if key not in ("links", "elapsed_seconds", "url", "images", "image", "step")} | {
                    "images": [{**image, "url": (image["url"] or "").rpartition("/")[2]}
                               for image in job["images"]]}
    return json.dumps(clean(one)) == json.dumps(clean(other))


def test_the_other_gateway_knows_a_job_at_once_and_tells_the_same(both):
    for seed in range(10):
        job = both[seed % 2].submit("known to all", seed=seed, **SMALL)
        answer = both[1 - seed % 2].session.get(
            f"{both[1 - seed % 2].url}/v1/generations/{job['id']}", timeout=30)
        assert answer.status_code == 200, "404 only after reading to the end"
        ends = [client.wait(job["id"]) for client in both]
        assert same(*ends)
        assert ends[0]["images"][0]["content_hash"] == ends[1]["images"][0]["content_hash"]


def test_events_go_on_at_the_other_gateway(both):
    job = both[0].submit("followed", seed=20, width=64, height=64, steps=40)["id"]
    seen = []
    for event in both[0].events(job):
        seen.append(event)
        if event[1] == "step":
            break
    rest = list(both[1].events(job, last_event_id=seen[-1][0]))
    ids = [tuple(map(int, event[0].split("-"))) for event in seen + rest]
    assert ids == sorted(set(ids)), "nothing twice, nothing backwards"
    assert rest[-1][1] == "done"


def test_what_one_accepts_the_other_cancels(both):
    job = both[0].submit("not wanted", seed=30, width=64, height=64, steps=200)["id"]
    both[0].wait_for(job, "running")
    assert both[1].cancel(job).status_code == 202
    ends = [client.wait(job) for client in both]
    assert {end["state"] for end in ends} == {"cancelled"} and same(*ends)
    time.sleep(0.5)
    assert all(client.get(job)["images"][0]["url"] is None for client in both)


def test_of_two_orders_under_one_key_in_one_moment_one_is_refused(both):
    for number in range(5):
        key, answers = str(uuid.uuid4()), [None, None]

        def order(which, key=key, answers=answers, number=number):
            answers[which] = both[which].post({"prompt": f"{number} of {which}", **SMALL},
                                              Idempotency_Key=key)
        threads = [threading.Thread(target=order, args=(which,)) for which in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [202, 409]
        accepted = next(answer.json() for answer in answers if answer.status_code == 202)
        hashes = {client.wait(accepted["id"])["images"][0]["content_hash"] for client in both}
        assert hashes == {accepted["images"][0]["content_hash"]}, "not the order that was accepted"


def test_requests_decide_also_when_the_pictures_of_one_are_in_the_cache(stack, both):
    body = {"prompt": "cached", "seed": 1, **SMALL}
    for client in both:
        client.wait(client.post(body).json()["id"])
    answer = both[0].post(body, Idempotency_Key=str(uuid.uuid4()))
    assert answer.status_code == 200 and answer.json()["images"][0]["url"]
    hit, = [job for job in stack.topics.read("requests", messages.Job)
            if job.envelope.job_id == answer.json()["id"]]
    end, = stack.topics.statuses(hit.envelope.job_id)
    assert hit.is_drawn and end.envelope.sender.startswith("router")
    # What two gateways write in one moment, in both orders.
    for first_is_hit in (True, False):
        drawn = messages.Job()
        drawn.CopyFrom(hit)
        drawn.is_drawn, drawn.images[0].object_key = False, ""
        drawn.images[0].content_hash = hashlib.sha256(b"another order").hexdigest()
        orders = [hit, drawn] if first_is_hit else [drawn, hit]
        job_id, now_ms = str(uuid.uuid4()), int(time.time() * 1000)
        for job in orders:
            job.envelope.job_id, job.accepted_ms = job_id, now_ms
            stack.topics.send("requests", job)
        hashes = {client.wait(job_id)["images"][0]["content_hash"] for client in both}
        assert hashes == {orders[0].images[0].content_hash}
        time.sleep(0.5)
        told = stack.topics.statuses(job_id)
        assert {status.images[0].content_hash for status in told} == hashes


def test_one_idempotency_key_is_one_job_at_both(stack, both):
    key, answers = str(uuid.uuid4()), []

    def order(number):
        answers.append(both[number % 2].post({"prompt": "once", **SMALL}, Idempotency_Key=key))
    threads = [threading.Thread(target=order, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job_id, = {answer.json()["id"] for answer in answers}
    assert both[0].wait(job_id)["state"] == "succeeded"
    runs = [s for s in stack.topics.statuses(job_id) if s.state == 3]
    assert len(runs) == 1


def test_a_gateway_that_starts_anew_knows_them_all(stack, both):
    jobs = [both[0].submit("remembered", seed=seed, **SMALL)["id"] for seed in range(40, 45)]
    ends = {job: both[0].wait(job) for job in jobs}
    hit = both[0].post({"prompt": "remembered", "seed": 40, **SMALL}).json()
    assert hit["state"] == "succeeded" and hit["id"] not in jobs
    wait_until(lambda: stack.topics.hits(hit["id"]), 10)
    stack.gateway2.kill()
    stack.restart("gateway2").wait_ready()
    fresh = Gateway(f"http://127.0.0.1:{stack.gateway2.port('http')}", stack.key)
    for job, end in ends.items():
        assert same(fresh.get(job), end)
    assert same(fresh.get(hit["id"]), hit)
    assert fresh.post({"prompt": "remembered", "seed": 41, **SMALL}).status_code == 200
