"""An attempt that fails for a reason that may pass is made again later, and holds up nobody."""

import secrets
import time
import uuid

import pytest

from support import messages
from support.processes import BUILD, wait_until

State = messages.State
FAILING = 2
STACK = {"redis": None, "worker_binary": BUILD / "test/bench/zero_worker",
         "service_settings": {"worker": {"STEP_TIME": "20ms", "JOB_RETRY_FIRST": "1s",
                                         "FAILING_DRAWS": str(FAILING)}}}
SMALL = {"width": 64, "height": 64, "steps": 2}


def runs(stack, job):
    """(attempt, when, when to try again or 0) of every RUNNING."""
    return [(s.envelope.attempt, s.envelope.sent_ms, s.retry_at_ms)
            for s in stack.topics.statuses(job) if s.state == State.STATE_RUNNING]


def test_it_is_tried_again_with_growing_waits_and_others_go_first(stack, client):
    failing = client.submit("fail twice", seed=1, **SMALL)["id"]
    waiting = wait_until(lambda: next(
        (job for job in [client.get(failing)] if job["retry_at"]), None), 20)
    assert (waiting["state"], waiting["attempts"]) == ("running", 1)
    # The only worker is free for others meanwhile.
    others = [client.draw("not held up", seed=i, **SMALL) for i in range(3)]
    assert client.get(failing)["finished_at"] is None
    assert all(other["attempts"] == 1 for other in others)

    end = client.wait(failing)
    assert (end["state"], end["attempts"], end["retry_at"]) == ("succeeded", 3, None)
    found = runs(stack, failing)
    assert [run[0] for run in found] == [1, 1, 2, 2, 3]
    for told, started, span in ((found[1], found[2], 1000), (found[3], found[4], 2000)):
        assert span / 2 <= told[2] - told[1] <= span + 20, "half of the wait is jitter"
        assert started[1] >= told[2] - 5
    assert wait_until(lambda: stack.topics.lag("retry.default", "router") == 0, 10)
    assert stack.worker1.metric("crafterse_worker_jobs_total", state="retried") == FAILING


def test_its_events_tell_of_it_in_order(stack, client):
    stack.worker1.stop_cleanly()
    stack.restart("worker1").wait_ready()
    job = client.submit("fail and tell", seed=2, **SMALL)["id"]
    events = list(client.events(job))
    ids = [tuple(map(int, event[0].split("-"))) for event in events]
    assert ids == sorted(ids)
    names = [event[1] for event in events]
    assert "started" in names and names.count("retrying") >= 1 and names[-1] == "done"
    assert client.get(job)["state"] == "succeeded"


def test_what_fails_every_time_is_buried_with_its_history(make_stack, s3):
    stack = make_stack(s3=s3, worker_binary=STACK["worker_binary"], service_settings={
        "worker": {"FAILING_DRAWS": "1000", "JOB_RETRY_FIRST": "100ms"}})
    job = stack.client.submit("fail for ever", seed=3, **SMALL)["id"]
    end = stack.check_one_end([job])[job]
    assert (end["state"], end["error"]["code"]) == ("failed", "attempts_exhausted")
    assert "told to fail" in end["error"]["message"]
    assert end["attempts"] == 3
    letter = wait_until(stack.topics.dead_letters, 10)[0]
    assert [a.number for a in letter.attempts] == [1, 2, 3]
    for attempt in letter.attempts:
        assert (attempt.worker_id, attempt.reason) == ("worker1", "engine_error")
        assert 0 < attempt.started_ms <= attempt.ended_ms
        assert attempt.message == "told to fail"


def test_a_job_that_waits_for_its_next_attempt_can_be_cancelled(make_stack, s3):
    stack = make_stack(s3=s3, worker_binary=STACK["worker_binary"], service_settings={
        "worker": {"FAILING_DRAWS": "1000", "JOB_RETRY_FIRST": "60s", "JOB_RETRY_MAX": "60s"}})
    client = stack.client
    job = client.submit("fail and wait", seed=4, **SMALL)["id"]
    wait_until(lambda: client.get(job)["retry_at"], 20)
    began = time.monotonic()
    client.cancel(job)
    assert client.wait(job)["state"] == "cancelled"
    assert time.monotonic() - began < 5
    expiring = client.submit("fail and expire", seed=5, deadline=3, **SMALL)["id"]
    assert client.wait(expiring)["state"] == "expired"
    wait_until(lambda: stack.topics.lag("retry.default", "router") == 0, 10)


def test_those_that_are_due_are_tried_in_the_order_of_their_time(stack, client):
    client.draw("the worker is there", seed=40, **SMALL)
    job = next(iter(stack.topics.read("requests", messages.Job)))
    job.pool, job.envelope.attempt = "default", 1
    # The only worker is busy until all of them are due, and they are written before any is.
    busy = client.submit("busy", seed=41, width=64, height=64, steps=200)["id"]
    client.wait_for(busy, "running")
    now_ms, ids, payloads = int(time.time() * 1000), {}, []
    for due_ms in (3700, 3200, 3500, 3100, 3600, 3300):
        job.envelope.job_id = str(uuid.uuid4())
        job.not_before_ms = now_ms + due_ms
        job.images[0].content_hash = secrets.token_hex(32)
        ids[job.envelope.job_id] = due_ms
        payloads.append(job.SerializeToString())
    stack.topics.write_all("retry.default", payloads)

    def started():
        return sorted((s.envelope.sent_ms, ids[s.envelope.job_id]) for s in
                      stack.topics.read("status", messages.Status)
                      if s.state == State.STATE_RUNNING and s.envelope.job_id in ids)
    assert time.time() * 1000 < now_ms + min(ids.values())
    wait_until(lambda: len(started()) == len(ids), 20)
    assert [due_ms for _, due_ms in started()] == sorted(ids.values())


@pytest.mark.parametrize("victim", ["router", "worker1"])
def test_who_is_killed_meanwhile_makes_no_difference(make_stack, s3, victim):
    stack = make_stack(s3=s3, worker_binary=STACK["worker_binary"], service_settings={
        "worker": {"FAILING_DRAWS": "1", "JOB_RETRY_FIRST": "3s", "JOB_RETRY_MAX": "3s"}})
    client = stack.client
    job = client.submit("fail once", seed=6, **SMALL)["id"]
    told = wait_until(lambda: [run for run in runs(stack, job) if run[2]], 20)[0]
    stack.services[victim].kill()
    stack.restart(victim)
    if victim == "worker1":  # a fresh one fails once more
        assert stack.check_one_end([job], timeout=60)[job]["attempts"] == 3
    else:
        assert stack.check_one_end([job], timeout=60)[job]["attempts"] == 2
    started = next(run for run in runs(stack, job) if run[0] == 2 and not run[2])
    assert started[1] >= told[2] - 5
