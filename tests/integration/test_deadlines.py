"""What a deadline does to a job: expired before it starts, stopped while it runs, or cut short."""

import io
import time

import pytest
from PIL import Image

from support import messages
from support.processes import BUILD

State = messages.State
STEP_MS = 50
STACK = {"worker_binary": BUILD / "test/bench/zero_worker",
         "service_settings": {"worker": {"STEP_TIME": f"{STEP_MS}ms"}}}


def order(client, seconds, **fields):
    """A picture that takes this long."""
    return client.submit(width=64, height=64, steps=int(seconds * 1000 / STEP_MS), **fields)["id"]


def states(stack, job):
    return [status.state for status in stack.topics.statuses(job)]


def test_a_job_whose_deadline_passes_in_the_queue_is_never_run(stack, client):
    blocking = order(client, 3, seed=1)
    client.wait_for(blocking, "running")
    for mode in ("expire", "partial"):
        late = order(client, 1, seed=2, deadline=1, on_deadline=mode)
        end = client.wait(late)
        assert (end["state"], end["error"]["code"]) == ("expired", "deadline_passed")
        assert State.STATE_RUNNING not in states(stack, late)
    client.cancel(blocking)
    client.wait(blocking)


def test_a_run_past_its_deadline_stops_at_the_next_step(stack, client):
    job = order(client, 30, seed=3, deadline=1)
    began = time.monotonic()
    end = client.wait(job)
    assert (end["state"], end["partial"], end["url"]) == ("expired", False, None)
    assert time.monotonic() - began < 4


def test_what_there_is_at_the_deadline_is_a_partial_success(stack, client):
    end = client.wait(order(client, 30, seed=4, deadline=1.5, on_deadline="partial"))
    assert (end["state"], end["partial"], end["error"]) == ("succeeded", True, None)
    image, = end["images"]
    assert 1 <= image["partial_steps"] <= 31
    assert image["url"].endswith(f"{image['content_hash']}-{image['partial_steps']}.png")
    stack.check_one_end([end["id"]])


def test_of_several_pictures_those_are_kept_that_were_begun(stack, client):
    body = {"prompt": "several", "width": 64, "height": 64, "steps": 20, "seed": 5, "n": 4,
            "deadline": 1.5, "on_deadline": "partial"}
    job = client.post(body, Idempotency_Key="several").json()["id"]
    end = client.wait(job)
    again = client.post(body, Idempotency_Key="several")
    assert again.status_code == 200 and again.json()["id"] == job
    assert (end["state"], end["partial"], end["n"]) == ("succeeded", True, 4)
    first, second = end["images"]
    assert first["partial_steps"] is None and second["partial_steps"] > 0
    stack.check_one_end([job])


def test_a_partial_picture_is_nobody_elses(stack, client):
    fields = {"seed": 6, "prompt": "a shield in a hurry"}
    cut = client.wait(order(client, 3, deadline=1, on_deadline="partial", **fields))
    assert cut["partial"]
    whole = client.wait(order(client, 3, **fields))
    assert (whole["state"], whole["partial"]) == ("succeeded", False)
    assert whole["images"][0]["content_hash"] == cut["images"][0]["content_hash"]
    assert whole["url"] != cut["url"]
    # The whole one is everybody's, also of those who are in a hurry.
    again = client.post({"width": 64, "height": 64, "steps": 60, "deadline": 1,
                         "on_deadline": "partial", **fields})
    assert again.status_code == 200 and again.json()["url"] == whole["url"]


def test_who_takes_a_partial_picture_shares_no_run(stack, client):
    fields = {"seed": 7, "prompt": "two shields"}
    jobs = [order(client, 1, **fields), order(client, 1, deadline=60, on_deadline="partial",
                                              **fields)]
    stack.check_one_end(jobs)
    for job in jobs:
        assert State.STATE_RUNNING in states(stack, job)


@pytest.mark.parametrize("mode", ["expire", "partial"])
def test_without_a_deadline_the_workers_limit_is_one(make_stack, s3, mode):
    stack = make_stack(s3=s3, worker_binary=STACK["worker_binary"], service_settings={
        "worker": {"STEP_TIME": f"{STEP_MS}ms", "JOB_TIME_LIMIT": "1s"}})
    end = stack.client.wait(order(stack.client, 30, seed=8, on_deadline=mode))
    if mode == "partial":
        assert (end["state"], end["partial"]) == ("succeeded", True)
    else:
        assert (end["state"], end["error"]["code"]) == ("expired", "time_limit")


def test_the_engine_decodes_what_there_is(make_stack, s3):
    stack = make_stack(s3=s3)
    end = stack.client.wait(stack.client.submit(
        "a sword in a hurry", seed=9, width=64, height=64, steps=999, deadline=2,
        on_deadline="partial")["id"])
    assert (end["state"], end["partial"]) == ("succeeded", True)
    key = next(key for key in stack.stored() if end["images"][0]["content_hash"] in key)
    picture = Image.open(io.BytesIO(stack.stored()[key]))
    assert picture.size == (64, 64)
    assert f"Steps done: {end['images'][0]['partial_steps']}" in picture.text["parameters"]
