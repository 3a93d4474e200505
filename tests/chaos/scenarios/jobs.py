"""Orders that are long, doubled, cancelled, too large or strange."""

import json
import secrets
import threading
import time
import uuid

import requests

from chaos import earlier
from chaos.scenarios.crashes import states, wait_ended
from chaos.scenarios.kafka import ONE_EACH
from chaos.scenarios.scenario import Desk, scenario
from chaos.storm import Storm
from support.messages import Control, Job, State, Status, WorkerAnnouncement
from support.processes import wait_until


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def short_jobs(desk, count):
    """Milliseconds from order to end of short jobs, one after the other."""
    took = []
    for _ in range(count):
        order = desk.order(steps=10)
        wait_ended(desk, [order], 30)
        took.append(desk.look(order)["timings"]["total_ms"])
    return took


@scenario(13, "a 20-minute job among 1 s jobs",
          "p95 of the short jobs at most twice their idle value",
          scaled="40 s among jobs of 0.5 s; SOAK=1: 20 minutes among them")
def long_among_short(run):
    fleet = run.fleet(counts={"router": 1, "worker": 2, "uploader": 1, "gateway": 1},
                      service_settings={"gateway": {"PICTURES_MAX": "24"},
                                        "worker": {"JOB_TIME_LIMIT": "30m"}})
    desk = Desk(run, fleet)
    idle = percentile(short_jobs(desk, 15), 0.95)
    size = {"steps": 1000, "n": 24, "deadline": 1800} if run.soak else {"steps": 800}
    long = desk.order(**size)
    desk.wait_for(long, "running")
    beside = percentile(short_jobs(desk, 25), 0.95)
    assert not long.has_ended, "the long job was over too early to say anything"
    run.note(f"p95 of short jobs: {idle} ms idle, {beside} ms beside the long one")
    assert beside <= 2 * idle, f"{beside} ms against {idle} ms"
    if not run.soak:
        desk.clients["alpha"].cancel(long)
    desk.settle(timeout=1500 if run.soak else 90)
    assert set(long.ends) == {"succeeded" if run.soak else "cancelled"}, long.ends
    if run.soak:
        runs = states(fleet, long).count(State.STATE_RUNNING)
        run.note(f"the long one succeeded after {desk.look(long)['timings']['total_ms'] / 6e4:.1f} "
                 f"minutes, started {runs} times")


def pool_of(fleet, order):
    """Where the router has sent it."""
    return next(s.pool for s in fleet.topics.read("status", Status)
                if s.envelope.job_id == order.id and s.pool)


@scenario(14, "all workers of one pool dead",
          "the load shifts to the other pool within two looks at the depths, before anybody has "
          "noticed that they are dead (8 s), and wholly then; what waits for them is drawn when "
          "they are back")
def dead_pool(run):
    fleet = run.fleet(counts={**ONE_EACH, "worker": 2}, pools=("default", "second"),
                      service_settings={"worker2": {"POOL": "second"}})
    desk = Desk(run, fleet)
    first = [desk.order(steps=4) for _ in range(8)]
    wait_ended(desk, first, 60)
    probe = desk.order(steps=2)
    wait_ended(desk, [probe], 30)
    dead = pool_of(fleet, probe)  # the one that is asked first when none has anything to do
    victim = "worker2" if dead == "second" else "worker1"
    fleet.supervisor.release(victim)
    fleet.supervisor.expect(victim)
    fleet.services[victim].kill()
    early = []
    for _ in range(6):
        early.append(desk.order(steps=2))
        time.sleep(1.1)  # two looks at the depths
    stuck = [pool_of(fleet, order) for order in early].count(dead)
    time.sleep(4)  # with those before, past the ttl
    late = [desk.order(steps=2) for _ in range(8)]
    wait_ended(desk, late, 30)
    run.note(f"{stuck} of 6 jobs, one each two looks at the depths, still went to the dead pool; "
             "8 of 8 after the ttl to the living one")
    assert stuck <= 2, "the load did not shift"
    fleet.supervisor.hold(victim)
    wait_ended(desk, early, 60)
    desk.settle()
    for order in (*first, *early, *late):
        assert set(order.ends) == {"succeeded"}, order.ends


@scenario(15, "one order 20 times at once with one idempotency key, across a gateway's restart",
          "one job id, one execution chain")
def same_order(run):
    fleet = run.fleet()
    desk = Desk(run, fleet)
    body = run.body(steps=4, cache="exact")
    orders, threads = [], []

    def submit(i):
        from chaos.clients import Client  # pylint: disable=import-outside-toplevel
        client = Client(fleet, desk.ledger, "beta")
        orders.append(client.submit(body, i, "only-one"))
    for i in range(20):
        threads.append(threading.Thread(target=submit, args=(i,)))
        threads[-1].start()
        if i == 10:
            fleet.kill("gateway1")
    for thread in threads:
        thread.join(90)
    ids = {order.id for order in orders if order is not None}
    assert len(orders) == 20 and None not in orders, "not every try was answered in the end"
    assert len(ids) == 1, f"one order became {len(ids)} jobs"
    wait_until(lambda: fleet.services["gateway1"].is_running(), 20)
    desk.settle()
    order = orders[0]
    requests_written = sum(1 for job in fleet.topics.read("requests", Job)
                           if job.envelope.job_id == order.id)
    runs = states(fleet, order).count(State.STATE_RUNNING)
    run.note(f"20 answers name one job; it stands {requests_written} times on `requests` and was "
             f"started {runs} time(s)")
    assert runs == 1, f"it was started {runs} times"


@scenario(16, "cancel before the queue, in it, while running, after the end; each twice",
          "exactly one end each; the worker is free at most 1 s after the cancel")
def cancels(run):
    fleet = run.fleet(counts=ONE_EACH, step_time="100ms")
    desk = Desk(run, fleet)
    client = desk.clients["alpha"]
    done = desk.order(steps=1)
    wait_ended(desk, [done], 30)
    assert not client.cancel(done) and not client.cancel(done), "an ended job was cancelled"

    fleet.signal("router1", 19)
    before = desk.order(steps=50)
    assert client.cancel(before) and client.cancel(before)
    fleet.signal("router1", 18)
    wait_ended(desk, [before], 30)

    running = desk.order(steps=100)
    queued = desk.order(steps=100)
    after = desk.order(steps=1)
    desk.wait_for(running, "running")
    assert client.cancel(queued) and client.cancel(queued)
    wait_ended(desk, [queued], 10)
    assert desk.look(running)["state"] == "running"
    began = time.monotonic()
    assert client.cancel(running)
    client.cancel(running)
    wait_until(lambda: State.STATE_RUNNING in states(fleet, after), 10, interval=0.01)
    started_ms = next(s.envelope.sent_ms for s in fleet.topics.read("status", Status)
                      if s.envelope.job_id == after.id and s.state == State.STATE_RUNNING)
    cancelled_ms = max(c.envelope.sent_ms for c in fleet.topics.read("control", Control)
                       if c.envelope.job_id == running.id)
    run.note(f"the next job started {started_ms - cancelled_ms} ms after the cancel of the one "
             "that was running")
    assert started_ms - cancelled_ms <= 1000 and time.monotonic() - began < 15
    verdict = desk.settle()
    assert dict(verdict.ends) == {"cancelled": 3, "succeeded": 2}, dict(verdict.ends)


@scenario(20, "payloads at the limits: limit - 1, limit, limit + 1, 0 bytes",
          "413 above the limit, an answer in words below it; no partition is wedged")
def boundaries(run):
    fleet = run.fleet(counts=ONE_EACH)
    desk = Desk(run, fleet)
    client = desk.clients["alpha"]
    limit = 64 * 1024

    def post(size):
        text = json.dumps(run.body()).encode()
        data = text + b" " * (size - len(text)) if size > 0 else b""
        return client.call("POST", 0, "/v1/generations", data=data, timeout=20,
                           headers={"Content-Type": "application/json"})
    for size, wanted in ((0, 400), (limit - 1, 202), (limit, 202), (limit + 1, 413),
                         (20 * limit, 413)):
        try:
            answer = post(size)
        except requests.exceptions.ConnectionError:
            assert size > limit, f"{size} bytes: the connection was closed without an answer"
            continue
        assert answer.status_code == wanted, f"{size} bytes: {answer.status_code} {answer.text}"
        if wanted == 202:
            desk.ledger.accept(answer.json(), "alpha", {})
    longest = desk.order(prompt="x" * 2000)
    answer = client.call("POST", 0, "/v1/generations", json=run.body(prompt="x" * 2001))
    assert answer.status_code == 422, answer.text
    inputs = 8 * 1024 * 1024
    answer = client.call("POST", 0, "/v1/inputs", data=b"\0" * inputs, timeout=30,
                         headers={"Content-Type": "image/png"})
    assert answer.status_code == 422, f"no picture: {answer.status_code} {answer.text}"
    try:
        answer = client.call("POST", 0, "/v1/inputs", data=b"\0" * (inputs + 1), timeout=30,
                             headers={"Content-Type": "image/png"})
        assert answer.status_code == 413, f"{answer.status_code} {answer.text}"
    except requests.exceptions.ConnectionError:
        pass
    # A record of each topic's own limit, empty ones and tombstones: all are passed over.
    for topic in ("requests", "queue.default.interactive", "jobs.default", "status", "control"):
        for payload in (b"", b"\0" * (1024 * 1024 - 200)):
            fleet.topics.write(topic, payload, key=b"boundary")
    fleet.topics.write("results", b"\0" * (15 * 1024 * 1024), key=b"boundary")
    orders = [desk.order() for _ in range(4)]
    wait_ended(desk, [longest, *orders], 60)
    desk.settle(poisoned=None)
    run.note(f"{len(fleet.topics.dead_letters())} records went to deadletter, all jobs succeeded")


def write_retries(fleet, delays_s):
    """Jobs that wait for their next attempt, all from now; returns job id -> when it is due."""
    job = next(iter(fleet.topics.read("requests", Job)))
    job.pool, job.envelope.attempt, due = "default", 1, {}
    begin_ms = int(time.time() * 1000)
    for delay_s in delays_s:
        job.envelope.job_id = str(uuid.uuid4())
        job.not_before_ms = begin_ms + int(1000 * delay_s)
        job.images[0].content_hash = secrets.token_hex(32)
        due[job.envelope.job_id] = job.not_before_ms
        fleet.topics.send("retry.default", job)
    return due


@scenario(21, "attempts that wait for 5 s to 1 min, and restarts while they wait",
          "not before their time, and in the order of their time, also when router and worker are "
          "killed meanwhile", scaled="5 to 16 s; SOAK=1: to 1 min")
def retries(run):
    fleet = run.fleet(counts=ONE_EACH, service_settings={
        "worker": {"FAILING_DRAWS": "1", "JOB_RETRY_FIRST": "6s", "JOB_RETRY_MAX": "1m"}})
    desk = Desk(run, fleet)
    order = desk.order(prompt="fail once")

    def waiting():
        return [s for s in fleet.topics.read("status", Status)
                if s.envelope.job_id == order.id and s.retry_at_ms > 0]
    told = wait_until(waiting, 30)[0]
    due = write_retries(fleet, (60 if run.soak else 16, 5, 12, 6.5, 8, 5.5))
    fleet.kill("router1")
    # No more failures: the one draw that is told to fail is this process's.
    fleet.services["worker1"].environment["CRAFTERSE_FAILING_DRAWS"] = "0"
    fleet.kill("worker1")
    other = desk.order()
    wait_ended(desk, [order, other], 60)
    second = [s for s in fleet.topics.read("status", Status) if s.envelope.job_id == order.id and
              s.state == State.STATE_RUNNING and s.retry_at_ms == 0][-1]
    early_ms = told.retry_at_ms - second.envelope.sent_ms
    run.note(f"the second attempt began {-early_ms} ms after its time, across a kill -9 of router "
             "and worker")
    assert early_ms <= 5, f"the attempt was {early_ms} ms too early"

    def started():
        """(when, job) of each one's first start: the worker may have been killed in the middle."""
        first = {}
        for status in fleet.topics.read("status", Status):
            job_id, at_ms = status.envelope.job_id, status.envelope.sent_ms
            if status.state == State.STATE_RUNNING and job_id in due:
                first[job_id] = min(at_ms, first.get(job_id, at_ms))
        return sorted((at_ms, job_id) for job_id, at_ms in first.items())
    wait_until(lambda: len(started()) == len(due), 90, interval=0.3)
    late_ms = [at_ms - due[job_id] for at_ms, job_id in started()]
    run.note(f"{len(due)} more, due after 5 to {60 if run.soak else 16} s, written in another "
             f"order: begun {min(late_ms)} to {max(late_ms)} ms after their time")
    assert min(late_ms) >= -5, late_ms
    assert [due[job_id] for _, job_id in started()] == sorted(due.values()), "not in their order"
    desk.settle()
    assert set(order.ends) == {"succeeded"} and desk.look(order)["attempts"] == 2


def with_unknown_fields(message):
    """As a later version would send it: a string field 1000 and a varint field 1001."""
    return message.SerializeToString() + b"\xc2\x3e\x05later" + b"\xc8\x3e\x07"


def run_versions(run, title, programs):
    """A storm without faults on two of each service, some of them of another version."""
    fleet = run.fleet(start=False, programs=programs)
    # As an upgrade does it: the topics first.
    fleet.topics.create("hits", "retry.default", partitions=1)
    fleet.start()
    storm = Storm(fleet, run.seed, 40, say=lambda text: None)
    storm.faults = []
    verdict = storm.run()
    run.total.add(verdict)
    ends = ", ".join(f"{count} {state}" for state, count in sorted(verdict.ends.items()))
    run.note(f"{title}: {verdict.line()}; {ends}")
    assert verdict.is_clean, "\n".join(verdict.problems()[:20])
    run.stop(fleet)


@scenario(23, "version skew: workers and uploaders of an earlier version with today's gateways and "
          "routers, the reverse, and one of each side by side; messages of a later version",
          "all jobs complete; unknown fields and states are passed over")
def version_skew(run):
    later_records(run)
    if not earlier.has_history():
        run.note(f"an earlier version's services: NOT RUN, commit {earlier.COMMIT} is not here (a "
                 "clone without history)")
        return
    programs = earlier.build()
    for title, names in (
            ("earlier workers and uploaders", ("worker1", "worker2", "uploader1", "uploader2")),
            ("earlier gateways and routers", ("gateway1", "gateway2", "router1", "router2")),
            ("one of each earlier", ("worker1", "uploader1", "gateway1", "router1"))):
        run_versions(run, title, {name: programs[name[:-1]] for name in names})


def later_records(run):
    """Records stand in for the services of a version that is not written yet."""
    fleet = run.fleet(counts=ONE_EACH)
    desk = Desk(run, fleet)
    model = desk.order()
    wait_ended(desk, [model], 30)
    template = next(job for job in fleet.topics.read("requests", Job)
                    if job.envelope.job_id == model.id)
    ids = []
    for number, form in enumerate((with_unknown_fields, as_earlier)):
        job = Job()
        job.CopyFrom(template)
        job.envelope.job_id = f"0190a0b0-0000-7000-8000-00000000000{number}"
        job.accepted_ms = int(time.time() * 1000)
        for image in job.images:
            image.content_hash = f"{number}" * 64
        ids.append(job.envelope.job_id)
        fleet.topics.write("requests", form(job), key=job.envelope.job_id)
        wait_until(lambda i=job.envelope.job_id: any(
            s.state >= State.STATE_RUNNING and s.envelope.job_id == i
            for s in fleet.topics.read("status", Status)), 20, interval=0.1)
        later = Status(state=7, key_id="alpha")
        later.envelope.job_id = job.envelope.job_id
        fleet.topics.write("status", with_unknown_fields(later), key=job.envelope.job_id)
    control = Control()
    control.envelope.job_id = ids[0]
    control.kind = 99
    fleet.topics.write("control", with_unknown_fields(control), key=ids[0])
    announcement = WorkerAnnouncement(worker_id="later", pool="default", lanes=[],
                                      last_seen_ms=int(time.time() * 1000))
    fleet.topics.write("workers", with_unknown_fields(announcement), key=b"later")

    def ended():
        return {s.envelope.job_id for s in fleet.topics.read("status", Status)
                if s.state == State.STATE_SUCCEEDED} >= set(ids)
    wait_until(ended, 40, interval=0.3)
    desk.order()
    desk.settle()
    run.note("orders with unknown fields, with none of the newer fields, an unknown state, kind "
             "and announcement: all jobs succeeded")
    run.stop(fleet)


def as_earlier(job):
    """Only the fields of the first version."""
    first = Job()
    first.CopyFrom(job)
    for field, _ in job.ListFields():
        if field.number > 11:
            first.ClearField(field.name)
    for field, _ in job.generation.ListFields():
        if field.number > 11:
            first.generation.ClearField(field.name)
    return first.SerializeToString()


@scenario(17, "a worker joins or leaves every 2 s (rebalance storm)",
          "progress goes on, commits recover, no partition is stuck",
          scaled="20 s; SOAK=1: 2 minutes")
def rebalance_storm(run):
    fleet = run.fleet(counts={"worker": 2}, service_settings={"router": {"LANES": "16"}})
    seconds = 120 if run.soak else 20
    storm = Storm(fleet, run.seed, 4 * seconds, say=lambda text: None)
    storm.faults = []
    begin = time.monotonic()
    changes = 0

    def toggle():
        nonlocal changes
        changes += 1
        if changes % 2 == 1:
            fleet.add(f"worker{2 + changes}").start()
        else:
            fleet.signal(f"worker{1 + changes}", 15)
    for at in range(2, seconds, 2):
        storm.later.append((begin + at, toggle))
    verdict = storm.run()
    run.total.add(verdict)
    run.note(f"{changes} changes, {verdict.again} of {verdict.jobs} jobs drawn more than once")
    assert verdict.is_clean, "\n".join(verdict.problems()[:20])
