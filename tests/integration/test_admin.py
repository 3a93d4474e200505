"""crafterse-admin on a running system."""

import signal
import subprocess
import time
import uuid

import pytest

from support.processes import BUILD, wait_until
from support.stack import BIN

STACK = {"redis": None, "worker_binary": BUILD / "test/bench/zero_worker",
         "service_settings": {"worker": {"STEP_TIME": "100ms", "JOB_ATTEMPTS_MAX": "1"}}}


@pytest.fixture
def admin(stack):
    """Runs crafterse-admin; gives its stdout, or its stderr when it is to fail."""
    def run(*words, fails=False):
        environment = {"CRAFTERSE_KAFKA_BROKERS": stack.brokers,
                       "CRAFTERSE_KAFKA_TOPIC_PREFIX": stack.prefix}
        done = subprocess.run([BIN / "crafterse-admin", *map(str, words)], env=environment,
                              capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout
    return run


def rows(text):
    return [line.split() for line in text.splitlines()[1:]]


def test_queues_tell_what_waits_and_for_how_long(stack, client, admin):
    jobs = [client.submit("a sword", seed=i, steps=30, width=64, height=64)["id"]
            for i in range(4)]
    client.wait_for(jobs[0], "running")
    time.sleep(1.1)
    found = {row[0].removeprefix(stack.prefix): row[1:] for row in rows(admin("queues"))}
    assert set(found) == {"requests", "queue.default.interactive", "queue.default.batch",
                          "retry.default", "jobs.default", "results", "repairs"}
    waiting = found["queue.default.interactive"]
    assert int(waiting[0]) >= 1 and float(waiting[1]) > 1.0
    assert int(found["jobs.default"][0]) >= 1
    for job in jobs:
        client.cancel(job)
        client.wait(job)


def test_workers_are_listed_and_a_job_can_be_cancelled(client, admin):
    job = client.submit("a shield", steps=300, width=64, height=64)["id"]
    client.wait_for(job, "running")
    wait_until(lambda: job in admin("workers"), 20)
    worker = next(row for row in rows(admin("workers")) if row[0] == "worker1")
    assert worker[1:3] == ["default", "zero"]
    admin("cancel", job)
    assert client.wait(job)["state"] == "cancelled"


def letters_of(admin, job):
    return [row for row in rows(admin("letters")) if job in row]


def test_a_dead_letter_is_listed_shown_replayed_and_dropped(stack, client, admin):
    doomed = client.submit("a cursed crown", seed=5, steps=50, width=64, height=64)["id"]
    client.wait_for(doomed, "running")
    stack.worker1.kill()  # the one attempt it has
    stack.restart("worker1")
    assert client.wait(doomed)["error"]["code"] == "attempts_exhausted"
    wait_until(lambda: letters_of(admin, doomed), 20)
    letter = letters_of(admin, doomed)[0][0]
    shown = admin("letters", "show", letter)
    assert "a cursed crown" in shown and "attempts_exhausted" in shown and "seed 5" in shown
    assert "attempt   1 on worker1" in shown and "worker_lost" in shown

    again = admin("letters", "replay", letter).split()[-1]
    assert uuid.UUID(again)
    assert client.wait(again)["state"] == "succeeded"
    assert client.get(doomed)["state"] == "failed"

    admin("letters", "drop", letter)
    assert not letters_of(admin, doomed)
    assert "no dead letter" in admin("letters", "show", letter, fails=True)


def test_what_is_no_order_cannot_be_replayed(stack, admin):
    job = str(uuid.uuid4())
    stack.topics.write("requests", b"not protobuf", job)
    wait_until(lambda: letters_of(admin, job), 20)
    letter = letters_of(admin, job)[0][0]
    assert "no order" in admin("letters", "replay", letter, fails=True)
    assert "undecodable" in admin("letters", "show", letter)


def test_a_paused_pool_starts_nothing_until_it_is_resumed(stack, client, admin):
    admin("pause", "default")
    try:
        wait_until(lambda: stack.router.metric("crafterse_router_pool_paused", pool="default"), 10)
        job = client.submit("a patient sword", seed=90, steps=1, width=64, height=64)["id"]
        time.sleep(1)
        assert client.get(job)["state"] == "queued"
        assert "pool default is paused" in admin("workers")
        # Routers that start later know it too.
        stack.router.stop_cleanly()
        stack.restart("router").wait_ready()
        time.sleep(1.5)
        assert client.get(job)["state"] == "queued"
    finally:
        admin("resume", "default")
    assert client.wait(job)["state"] == "succeeded"
    assert "paused" not in admin("workers")


def test_what_was_ordered_is_drawn_once_more_for_a_test(stack, client, admin):
    before = client.draw("long ago", seed=91, steps=1, width=64, height=64)
    time.sleep(1.1)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    drawn = [client.draw("again", seed=seed, steps=1, width=64, height=64) for seed in (92, 93)]
    objects = set(stack.stored())
    pairs = [line.split() for line in
             admin("replay", since, int(time.time()) + 1, "default").splitlines()]
    assert sorted(old for old, _ in pairs) == sorted(job["id"] for job in drawn)
    assert before["id"] not in [old for old, _ in pairs]
    for _, new in pairs:
        wait_until(lambda: any(s.state == 10 for s in stack.topics.statuses(new)), 30)
        # It is nobody's job, and its picture nobody's picture.
        assert client.session.get(f"{client.url}/v1/generations/{new}").status_code == 404
    assert len(set(stack.stored()) - objects) == 2
    assert "no time" in admin("replay", "yesterday", "now", "default", fails=True)
    assert "none of CRAFTERSE_POOLS" in admin("replay", 0, 1, "nowhere", fails=True)


def test_a_worker_drains_when_asked(stack, admin):
    admin("drain", "worker1")
    wait_until(lambda: not stack.worker1.is_running(), 30)
    assert stack.worker1.child.returncode == 0
    wait_until(lambda: "worker1" not in admin("workers"), 10)


def test_a_letter_that_nobody_can_read_can_be_dropped(stack, admin):
    stack.topics.write("deadletter", b"not protobuf", "a key")
    unreadable = wait_until(
        lambda: [row for row in rows(admin("letters")) if "(not" in row], 10)[0][0]
    assert "no order" in admin("letters", "replay", unreadable, fails=True)
    admin("letters", "drop", unreadable)
    assert unreadable not in [row[0] for row in rows(admin("letters"))]


def test_who_ordered_still_sees_what_an_operator_has_cancelled(stack, client, admin):
    """Also at a gateway that reads of the end first, and of the order only then."""
    stack.router.child.send_signal(signal.SIGSTOP)  # so that it reads of all of it at once
    jobs = [client.submit("unwanted", seed=i, width=64, height=64)["id"] for i in range(4)]
    for job in jobs:
        admin("cancel", job)
    stack.router.child.send_signal(signal.SIGCONT)
    for job in jobs:
        assert client.wait(job)["state"] == "cancelled"
    stack.gateway.stop_cleanly()
    stack.restart("gateway").wait_ready()
    assert {stack.client.get(job)["state"] for job in jobs} == {"cancelled"}


def test_mistakes_are_named(admin, stack):
    assert "Usage" in admin(fails=True)
    assert "--help" in admin("queue", fails=True)
    assert "cancel JOB" in admin("cancel", fails=True)
    assert "no dead letter" in admin("letters", "show", "xyz", fails=True)
    assert "no job's id" in admin("cancel", "worker1", fails=True)
    assert "no worker that is there" in admin("drain", "nobody", fails=True)
    assert "none of CRAFTERSE_POOLS" in admin("pause", "defualt", fails=True)
    assert "no pool that is paused" in admin("resume", "default", fails=True)
    assert "not before" in admin("replay", 2, 1, "default", fails=True)
