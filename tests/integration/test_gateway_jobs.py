"""A job's life as its client sees it, told by the test's own messages on a real Kafka."""

import json
import threading
import time
import uuid

import pytest
import requests

from support.player import AutoPlayer, Player
from support.processes import wait_until

KEY = "tests"


@pytest.fixture(scope="module")
def player(kafka, tmp_path_factory):
    one = Player(tmp_path_factory.mktemp("gateway"), kafka.brokers, RATE_PER_MINUTE="0",
                 PUBLIC_URL="https://api.example", CDN_BASE_URL="https://cdn.example/p")
    one.make_topics().start()
    yield one
    one.stop()


@pytest.fixture
def client(player):
    return player.client


def error_code(answer):
    return answer.json()["error"]["code"]


def wait_state(client, job, state):
    return client.wait_for(job["id"], state, timeout=15)


# ---- Ordering ----------------------------------------------------------------------------------

def test_an_order_is_resolved_in_full_and_on_the_topic_before_it_is_answered(player, client):
    answer = client.post({"prompt": "a sword", "n": 2, "priority": "batch", "deadline": 600},
                         traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["Location"] == f"https://api.example/v1/generations/{body['id']}"
    assert body["links"]["events"] == answer.headers["Location"] + "/events"
    assert body["state"] == "accepted"
    job, = player.requests(body["id"])
    drawn = job.generation
    assert (drawn.width, drawn.height, drawn.steps, drawn.scheduler) == (128, 128, 20, "ddim")
    assert drawn.model_digest == "d" * 64 and drawn.guidance_scale == 7 and drawn.n == 2
    assert drawn.seed == body["seed"]
    assert [image.seed for image in job.images] == [drawn.seed, drawn.seed + 1]
    assert len({image.content_hash for image in job.images}) == 2
    assert job.key_id == KEY and job.job_class == 1
    assert job.envelope.traceparent == "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert abs(job.envelope.deadline_ms - time.time() * 1000 - 600000) < 60000
    player.status(body["id"], "cancelled")


def test_equal_orders_name_equal_pictures_whoever_asks(player, client):
    first = client.submit("a sword", seed=5, cache="bypass")
    second = client.submit("a sword", seed=5, cache="bypass")
    other = client.submit("a sword", seed=6, cache="bypass")
    assert first["id"] != second["id"]
    assert first["images"][0]["content_hash"] == second["images"][0]["content_hash"]
    assert first["images"][0]["content_hash"] != other["images"][0]["content_hash"]
    for job in (first, second, other):
        player.status(job["id"], "cancelled")


def test_without_a_seed_every_order_gets_its_own(player, client):
    jobs = [client.submit("a sword") for _ in range(5)]
    assert len({job["seed"] for job in jobs}) == 5
    for job in jobs:
        player.status(job["id"], "cancelled")


# ---- States ------------------------------------------------------------------------------------

def test_every_state_is_told_with_step_and_url(player, client):
    job = client.submit("a sword", seed=11)
    job_id = job["id"]
    player.status(job_id, "queued")
    body = wait_state(client, job, "queued")
    assert body["queue_position"] == 1 and body["eta_seconds"] > 0
    player.status(job_id, "dispatched")
    wait_state(client, job, "dispatched")
    player.status(job_id, "running", 1)
    assert wait_state(client, job, "running")["attempts"] == 1
    player.progress(job_id, 5)
    deadline = time.monotonic() + 10
    while client.get(job_id)["step"] != 5:
        assert time.monotonic() < deadline
    body = client.get(job_id)
    assert body["steps"] == 20 and 0 < body["remaining_seconds"] < 3
    player.status(job_id, "rendered", 1)
    wait_state(client, job, "rendered")
    player.succeed(job)
    body = wait_state(client, job, "succeeded")
    image, = body["images"]
    assert body["url"] == image["url"] == (f"https://cdn.example/p/{image['content_hash'][:2]}/"
                                           f"{image['content_hash']}.png")
    assert (image["width"], image["bytes"], image["seed"]) == (128, 1234, 11)
    assert body["error"] is None and body["finished_at"]


@pytest.mark.parametrize("end", ["failed", "cancelled", "expired"])
def test_the_first_end_wins_and_says_why(player, client, end):
    job = client.submit("a sword")
    player.status(job["id"], end, 1, reason="a_reason", message="What to do.")
    body = wait_state(client, job, end)
    assert body["error"] == {"code": "a_reason", "message": "What to do."}
    player.succeed(job)
    player.status(job["id"], "running", 2)
    marker = client.submit("marker")  # its end is read after those
    player.status(marker["id"], "failed")
    wait_state(client, marker, "failed")
    body = client.get(job["id"])
    assert body["state"] == end and body["url"] is None


def test_a_job_belongs_to_its_key(player, client):
    job = client.submit("a sword")
    keys = player.stack.folder / "api.keys"
    import hashlib
    keys.write_text(keys.read_text() + f"thief:{hashlib.sha256(b'stolen').hexdigest()}\n")
    url = f"{client.url}/v1/generations/{job['id']}"
    thief = {"Authorization": "Bearer stolen"}
    deadline = time.monotonic() + 10
    while requests.get(url, headers=thief, timeout=5).status_code == 401:  # the file is re-read
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for answer in (requests.get(url, headers=thief, timeout=5),
                   requests.delete(url, headers=thief, timeout=5),
                   requests.get(f"{url}/events", headers=thief, timeout=5)):
        assert answer.status_code == 404 and error_code(answer) == "job_not_found"
    assert player.cancels(job["id"]) == []
    assert client.get(job["id"])["state"] == "accepted"
    player.status(job["id"], "cancelled")


def test_404_comes_only_after_reading_to_the_end(player, client):
    unknown = client.session.get(f"{client.url}/v1/generations/{uuid.uuid4()}", timeout=10)
    assert unknown.status_code == 404 and error_code(unknown) == "job_not_found"
    for _ in range(10):  # another gateway accepted it a moment ago
        job_id = str(uuid.uuid4())
        player.status(job_id, "queued")
        assert client.get(job_id)["state"] == "queued"


def test_a_malformed_id_is_not_found_and_an_old_one_is_gone(client):
    answer = client.session.get(f"{client.url}/v1/generations/no-uuid", timeout=10)
    assert answer.status_code == 404
    answer = client.session.get(
        f"{client.url}/v1/generations/01000000-b099-7f63-ae3e-8da143189060", timeout=10)
    assert answer.status_code == 410 and error_code(answer) == "job_expired"


# ---- Waiting -----------------------------------------------------------------------------------

def test_prefer_wait_holds_the_answer_until_the_picture_is_there(player, client):
    with AutoPlayer(player):
        answer = client.post({"prompt": "a sword"}, Prefer="wait=20")
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert answer.json()["state"] == "succeeded" and answer.json()["url"]


def test_when_the_wait_is_over_the_job_goes_on(player, client):
    started = time.monotonic()
    answer = client.post({"prompt": "a sword"}, Prefer="respond-async, wait=1")
    assert answer.status_code == 202 and 0.9 < time.monotonic() - started < 15
    assert answer.json()["state"] == "accepted"
    player.succeed(answer.json())
    url = f"{client.url}/v1/generations/{answer.json()['id']}"
    answer = client.session.get(url, headers={"Prefer": "wait=20"}, timeout=30)
    assert answer.status_code == 200 and answer.json()["state"] == "succeeded"


def test_a_client_that_leaves_while_it_waits_cancels_nothing(player, client):
    before = len(player.requests())
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.session.post(f"{client.url}/v1/generations", json={"prompt": "left"},
                            headers={"Prefer": "wait=2"}, timeout=0.7)
    job = player.requests()[-1] if len(player.requests()) == before + 1 else None
    jobs = [j for j in player.requests() if j.generation.prompt == "left"]
    assert len(jobs) == 1 and job is not None
    job_id = jobs[0].envelope.job_id
    assert client.get(job_id)["state"] == "accepted"
    player.status(job_id, "failed")


# ---- Events ------------------------------------------------------------------------------------

def names(events):
    return [name for _, name, _ in events]


def test_events_tell_the_whole_life_in_order(player, client):
    job = client.submit("a sword", n=2)
    threading.Timer(0.3, player.run, [job]).start()
    events = list(client.events(job["id"]))
    told = names(events)
    assert [name for name in told if name != "step"] == [
        "accepted", "queued", "dispatched", "started", "rendered", "uploaded", "done"]
    steps = [data["step"] for _, name, data in events if name == "step"]
    assert steps == sorted(set(steps))
    tuples = [tuple(map(int, event_id.split("-"))) for event_id, _, _ in events]
    assert tuples == sorted(tuples)
    assert len(events[-2][2]["images"]) == 2
    assert events[-1][2] == client.get(job["id"])


def test_last_event_id_resumes_also_at_another_gateway_after_a_restart(player, kafka, client,
                                                                       tmp_path):
    job = client.submit("a sword")
    player.run(job)
    client.wait(job["id"])
    whole = list(client.events(job["id"]))
    other = Player(tmp_path, kafka.brokers, PUBLIC_URL="https://api.example",
                   CDN_BASE_URL="https://cdn.example/p")
    other.stack.prefix, other.stack.key = player.stack.prefix, player.stack.key
    other.gateway.environment["CRAFTERSE_KAFKA_TOPIC_PREFIX"] = player.stack.prefix
    (tmp_path / "api.keys").write_text((player.stack.folder / "api.keys").read_text())
    other.start(announce=False)
    try:
        ids = [event_id for event_id, _, _ in whole]
        states = [event for event in whole if event[1] != "step"]
        for position, last in enumerate(ids[:-1]):
            resumed = list(other.client.events(job["id"], last_event_id=last))
            rest = whole[position + 1:]
            assert [e for e in resumed if e[1] != "step"] == [e for e in rest if e[1] != "step"]
        again = [e for e in other.client.events(job["id"]) if e[1] != "step"]
        assert again == states
        answer = other.client.session.get(f"{other.client.url}/v1/generations/{job['id']}/events",
                                          headers={"Last-Event-ID": ids[-1]}, timeout=5)
        assert answer.status_code == 204
    finally:
        other.stop()


def test_a_bad_last_event_id_is_refused(player, client):
    job = client.submit("a sword")
    answer = client.session.get(f"{client.url}/v1/generations/{job['id']}/events", timeout=5,
                                headers={"Last-Event-ID": "; drop"})
    assert answer.status_code == 400 and error_code(answer) == "invalid_last_event_id"
    player.status(job["id"], "cancelled")


def test_many_clients_follow_one_job(player, client):
    job = client.submit("a sword")
    told = []

    def follow():
        told.append(names(player.client.events(job["id"])))
    threads = [threading.Thread(target=follow) for _ in range(30)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    player.run(job)
    for thread in threads:
        thread.join(30)
    assert len(told) == 30 and all(one[-1] == "done" for one in told)
    deadline = time.monotonic() + 10
    while player.gateway.metric("crafterse_gateway_event_streams") != 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---- Cancelling --------------------------------------------------------------------------------

def test_a_cancel_is_an_order_and_confirmed_by_status(player, client):
    job = client.submit("a sword")
    answer = client.cancel(job["id"])
    assert answer.status_code == 202 and answer.json()["state"] == "accepted"
    control, = player.cancels(job["id"])
    assert control.kind == 0 and control.requested_by == KEY
    player.status(job["id"], "cancelled", reason="cancelled_by_client")
    assert wait_state(client, job, "cancelled")["error"]["code"] == "cancelled_by_client"
    assert client.cancel(job["id"]).status_code == 200


def test_a_cancel_that_is_repeated_is_one_order(player, client):
    job = client.submit("a sword")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(
        requests.delete(f"{client.url}/v1/generations/{job['id']}",
                        headers=client.session.headers, timeout=30))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    answers += [client.cancel(job["id"]) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [202] * 16
    assert len(player.cancels(job["id"])) == 1
    player.status(job["id"], "cancelled")


def test_what_has_ended_cannot_be_cancelled(player, client):
    job = client.submit("a sword")
    player.succeed(job)
    wait_state(client, job, "succeeded")
    answer = client.cancel(job["id"])
    assert answer.status_code == 409 and error_code(answer) == "job_finished"
    assert client.cancel(str(uuid.uuid4())).status_code == 404


# ---- Cache -------------------------------------------------------------------------------------

def test_a_picture_that_was_drawn_is_given_at_once(player, client):
    first = client.submit("a cached sword", seed=77)
    player.run(first)
    drawn = client.wait(first["id"])
    hits = player.gateway.metric("crafterse_gateway_cache_lookups_total", result="hit_process")
    answer = client.post({"prompt": "a cached sword", "seed": 77})
    assert answer.status_code == 200
    body = answer.json()
    assert body["state"] == "succeeded" and body["id"] != first["id"]
    assert body["url"] == drawn["url"]
    assert player.requests(body["id"]) == []
    told = wait_until(lambda: player.stack.topics.hits(body["id"]), 10)
    assert [end.state for end in told] == [10]
    assert names(client.events(body["id"])) == ["accepted", "uploaded", "done"]
    assert player.gateway.metric("crafterse_gateway_cache_lookups_total",
                                 result="hit_process") == hits + 1
    for different in ({"seed": 78}, {"seed": 77, "cache": "bypass"}, {"seed": 77, "steps": 21}, {}):
        answer = client.post({"prompt": "a cached sword", **different})
        assert answer.status_code == 202, different
        player.status(answer.json()["id"], "failed")


def test_any_seed_may_give_an_earlier_picture(player, client):
    first = client.submit("a hat of any kind")
    player.run(first)
    drawn = client.wait(first["id"])
    answer = client.post({"prompt": "a hat of any kind", "cache": "any-seed"})
    assert answer.status_code == 200
    assert (answer.json()["url"], answer.json()["seed"]) == (drawn["url"], drawn["seed"])
    # Who says nothing, or names another seed, gets a new one.
    for fields in ({}, {"seed": drawn["seed"] + 1, "cache": "any-seed"}):
        fresh = client.post({"prompt": "a hat of any kind", **fields})
        assert fresh.status_code == 202 and fresh.json()["seed"] != drawn["seed"]
        player.status(fresh.json()["id"], "failed")


def test_any_seed_joins_what_is_on_its_way_and_is_one_order_under_its_key(player, client):
    first = client.submit("a hat on its way")
    key = str(uuid.uuid4())
    body = {"prompt": "a hat on its way", "cache": "any-seed"}
    second = client.post(body, Idempotency_Key=key)
    assert second.status_code == 202
    assert second.json()["images"][0]["content_hash"] == first["images"][0]["content_hash"]
    again = client.post(body, Idempotency_Key=key)
    assert again.json()["id"] == second.json()["id"]
    other = client.post({**body, "steps": 21}, Idempotency_Key=key)
    assert other.status_code == 409
    for job in (first, second.json()):
        player.status(job["id"], "failed")


# ---- Idempotency -------------------------------------------------------------------------------

def test_one_idempotency_key_is_one_job(player, client):
    key = str(uuid.uuid4())
    answers = []

    def order():
        answers.append(player.client.post({"prompt": "once"}, Idempotency_Key=key))
    threads = [threading.Thread(target=order) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [202] * 20
    job_id, = {answer.json()["id"] for answer in answers}
    assert len(player.requests(job_id)) == 1
    different = client.post({"prompt": "other"}, Idempotency_Key=key)
    assert different.status_code == 409 and error_code(different) == "idempotency_key_reused"
    player.status(job_id, "failed")
    assert client.post({"prompt": "once"}, Idempotency_Key=key).json()["id"] == job_id


def test_an_idempotency_key_is_refused_when_it_is_none(client):
    answer = client.post({"prompt": "a"}, Idempotency_Key="two words")
    assert answer.status_code == 400 and error_code(answer) == "invalid_idempotency_key"


def test_a_gateway_that_starts_again_knows_every_job(player, client):
    key = str(uuid.uuid4())
    done = client.submit("a sword")
    player.run(done)
    client.wait(done["id"])
    waiting = client.post({"prompt": "waiting"}, Idempotency_Key=key).json()
    player.gateway.kill()
    player.gateway.start().port("http")
    fresh = player.client

    def first_look():
        """While it still reads the topics it says nothing of a job, rather than what was once."""
        answer = fresh.session.get(f"{fresh.url}/v1/generations/{done['id']}", timeout=30)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200 and answer.json()
    assert wait_until(first_look, 30)["state"] == "succeeded"
    player.gateway.wait_ready()
    assert json.dumps(fresh.get(done["id"])["images"]) != "[]"
    again = fresh.post({"prompt": "waiting"}, Idempotency_Key=key)
    assert again.status_code == 202 and again.json()["id"] == waiting["id"]
    assert len(player.requests(waiting["id"])) == 1
    player.status(waiting["id"], "failed")
