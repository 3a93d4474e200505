"""Processes that die, stand still and go."""

import random
import signal
import threading
import time

from chaos.fleet import SESSION_TIMEOUT_S
from chaos.scenarios.scenario import Desk, scenario
from chaos.storm import Storm
from support.messages import State, Status
from support.processes import wait_until

# Each step of a service that Kafka, the store or a client can see, before and after it. The number
# says the n-th: of the router's outputs the first two are of the admission (the queue and QUEUED),
# the next two of the dispatch; the worker's are RUNNING, the result and RENDERED.
CRASH_POINTS = (
    ("gateway1", "gateway.before_send:1"), ("gateway1", "gateway.after_send:1"),
    ("gateway1", "gateway.reported:1"), ("gateway1", "gateway.before_tell:1"),
    ("router1", "outbox.before_send:1"), ("router1", "outbox.after_send:1"),
    ("router1", "outbox.after_send:2"), ("router1", "outbox.reported:1"),
    ("router1", "outbox.committing:1"), ("router1", "commit.done:1"),
    ("router1", "outbox.after_send:3"), ("router1", "outbox.after_send:4"),
    ("router1", "outbox.reported:2"), ("router1", "commit.done:2"),
    ("worker1", "attempt.counted:1"), ("worker1", "outbox.after_send:1"),
    ("worker1", "worker.step:2"), ("worker1", "outbox.before_send:2"),
    ("worker1", "outbox.after_send:2"), ("worker1", "outbox.after_send:3"),
    ("worker1", "outbox.reported:1"), ("worker1", "outbox.committing:1"),
    ("worker1", "commit.done:2"),
    ("uploader1", "store.before_put:1"), ("uploader1", "store.after_put:1"),
    ("uploader1", "cache.after_put:1"), ("uploader1", "outbox.before_send:1"),
    ("uploader1", "outbox.after_send:1"), ("uploader1", "outbox.reported:1"),
    ("uploader1", "outbox.committing:1"), ("uploader1", "commit.done:1"),
)
# The session, the job (0.2 s), and a new start on a machine that is busy.
RECOVERY_S_MAX = SESSION_TIMEOUT_S + 10

# One of each kind, those whose loss would hurt most.
CRASH_POINTS_SHORT = (
    ("gateway1", "gateway.after_send:1"), ("router1", "outbox.after_send:3"),
    ("router1", "outbox.reported:1"), ("worker1", "worker.step:2"),
    ("worker1", "outbox.after_send:3"), ("uploader1", "store.after_put:1"),
    ("uploader1", "outbox.reported:1"),
)


def states(fleet, order):
    return [status.state for status in fleet.topics.read("status", Status)
            if status.envelope.job_id == order.id]


def wait_ended(desk, orders, timeout):
    """Until every one of them shows an end at the first gateway."""
    def ended():
        for order in orders:
            if not order.has_ended:
                desk.look(order)
        return all(order.has_ended for order in orders)
    wait_until(ended, timeout, interval=0.2)


def crash_at(run, fleet, name, point):
    """One order through a service that dies at the point, and one behind it. Returns how long after
    the death the first one's client knew of its end."""
    fleet.arm(name, point).wait_ready()
    desk = Desk(run, fleet)
    order = desk.order(cache="exact", idempotency_key=f"{name}-{point}", steps=4)
    told = threading.Event()
    watcher = threading.Thread(target=desk.clients["alpha"].watch, args=(order, told), daemon=True)
    watcher.start()
    wait_until(lambda: fleet.was_passed(name, point), 30,
               lambda: fleet.services[name].fail(f"never came to {point}"))
    died = time.monotonic()
    desk.order(steps=1)
    watcher.join(60)
    took = time.monotonic() - died
    told.set()
    assert order.has_ended, "its event stream never came to its end"
    assert took <= RECOVERY_S_MAX, f"its client was told {took:.1f} s after the death"
    verdict = desk.settle(timeout=60)
    assert dict(verdict.ends) == {"succeeded": 2}, f"after {name} {point}: {dict(verdict.ends)}"
    # It is up again before the next one is armed.
    wait_until(fleet.services[name].is_running, 30)
    return took


def crash_points(run, points):
    """The services that share a stage with the victim stay out: it is the victim that works."""
    fleet = run.fleet(faulty=True, counts={"router": 1, "worker": 1, "uploader": 1, "gateway": 1})
    for name, point in points:
        took = crash_at(run, fleet, name, point)
        run.note(f"{name} killed at {point}: both jobs succeeded, the first {took:.1f} s later")


@scenario(1, "kill -9 at each crash point of each stage, one a run",
          f"both jobs succeed, each seen once, within session timeout + job time (and 10 s for the "
          f"start of a new process: {RECOVERY_S_MAX} s)")
def kill_at_each_point(run, points=CRASH_POINTS):
    crash_points(run, points)


# With something in hand: an order, a record, a job that is drawn, a picture.
FATAL_POINTS = (("gateway1", "gateway.reported:1"), ("router1", "outbox.reported:1"),
                ("worker1", "worker.step:2"), ("uploader1", "store.before_put:1"))


@scenario(27, "Kafka's client fails for good (a fatal error) in each service, with work in hand",
          "the service ends by itself with status 1, not of a signal; the job succeeds, seen once")
def client_fails(run, points=FATAL_POINTS):
    fleet = run.fleet(faulty=True, counts={"router": 1, "worker": 1, "uploader": 1, "gateway": 1})
    for name, point in points:
        fleet.arm(name, f"{point}:fatal").wait_ready()
        desk = Desk(run, fleet)
        run.world.s3.delay = 1  # the picture is on its way to the store
        order = desk.order(steps=4)
        began = time.monotonic()
        wait_until(lambda n=name: f"{n} ended with status 1" in fleet.supervisor.gave_up, 60)
        took = time.monotonic() - began
        run.world.s3.delay = 0
        desk.settle(timeout=60)
        assert set(order.ends) == {"succeeded"}, order.ends
        run.note(f"{name}: ended {took:.1f} s after the order at {point}; the job succeeded")
        wait_until(fleet.services[name].is_running, 30)


@scenario(2, "random kill -9 of all four services every 1-5 s",
          "0 lost, 0 seen twice",
          scaled="20 s and 60 jobs with one seed; SOAK=1: 10 minutes and 500 jobs, 5 seeds")
def random_kills(run):
    seeds = range(run.seed, run.seed + (5 if run.soak else 1))
    for seed in seeds:
        fleet = run.fleet()
        storm = Storm(fleet, seed, 500 if run.soak else 60, say=lambda text: None,
                      seconds=600 if run.soak else 20)
        rng = random.Random(seed)
        storm.faults, at = [], 1.0
        while at < storm.seconds:
            storm.faults.append((at, "kill", {
                "kind": rng.choice(("gateway", "router", "worker", "uploader")),
                "which": rng.randrange(2)}))
            at += rng.uniform(1, 5)
        verdict = storm.run()
        run.note(f"seed {seed}: {verdict.line()}; {len(storm.faults)} kills, "
                 f"{verdict.again} drawn more than once")
        run.total.add(verdict)
        assert verdict.is_clean, "\n".join(verdict.problems()[:20])
        run.stop(fleet)


@scenario(3, "SIGSTOP of a worker past the session timeout, then SIGCONT (the zombie)",
          "its late result is ignored: one end, one notification, also when it was cancelled "
          "meanwhile")
def zombie(run):
    fleet = run.fleet(counts={"router": 1, "worker": 1, "uploader": 1, "gateway": 1},
                      step_time="100ms")
    desk = Desk(run, fleet)
    drawn, cancelled = desk.order(steps=15), desk.order(steps=15)
    zombies = []
    for i, order in enumerate((drawn, cancelled)):
        job = desk.wait_for(order, "running")
        assert job["state"] == "running", job
        zombies.append(fleet.of_kind("worker")[i])
        fleet.signal(zombies[-1], signal.SIGSTOP)
        if order is cancelled:
            assert desk.clients["alpha"].cancel(order)
        fleet.supervisor.hold(fleet.add(f"worker{i + 2}").start().name)
    wait_ended(desk, (drawn, cancelled), 60)
    assert set(cancelled.ends) == {"cancelled"}, cancelled.ends
    time.sleep(SESSION_TIMEOUT_S)
    for name in zombies:
        fleet.signal(name, signal.SIGCONT)
    time.sleep(2.5)  # as long as the rest of a job: what the zombies have to say is said
    desk.settle()
    for order in (drawn, cancelled):
        assert len(order.ends) == 1, order.ends
    runs = states(fleet, drawn).count(State.STATE_RUNNING)
    run.note(f"the first job was started {runs} times and ended once; the cancelled one never "
             "showed a picture")
    assert runs == 2, states(fleet, drawn)


@scenario(29, "SIGSTOP of a worker past its job's time limit, SIGCONT while another one draws it",
          "the time in which it was stopped is no part of the limit: the job succeeds")
def zombie_at_its_limit(run):
    limit_s = 8
    fleet = run.fleet(counts={"router": 1, "worker": 1, "uploader": 1, "gateway": 1},
                      step_time="100ms",
                      service_settings={"worker": {"JOB_TIME_LIMIT": f"{limit_s}s"}})
    desk = Desk(run, fleet)
    order = desk.order(steps=60)
    desk.wait_for(order, "running")
    zombie_name, = fleet.of_kind("worker")
    fleet.signal(zombie_name, signal.SIGSTOP)
    began = time.monotonic()
    fleet.supervisor.hold(fleet.add("worker2").start().name)
    wait_until(lambda: states(fleet, order).count(State.STATE_RUNNING) == 2, 30)
    time.sleep(max(1, began + limit_s + 0.5 - time.monotonic()))
    stopped_s = time.monotonic() - began
    fleet.signal(zombie_name, signal.SIGCONT)
    desk.settle()
    assert set(order.ends) == {"succeeded"}, order.ends
    run.note(f"stopped for {stopped_s:.1f} s at a limit of {limit_s} s; the job succeeded")


@scenario(30, "kill -9 of a worker between its last picture and the commit, with no attempt left",
          "what was drawn to its end is no failure: the job succeeds, no dead letter")
def rendered_and_not_committed(run):
    fleet = run.fleet(faulty=True, counts={"router": 1, "worker": 1, "uploader": 1, "gateway": 1},
                      service_settings={"worker": {"JOB_ATTEMPTS_MAX": "1"}})
    fleet.arm("worker1", "outbox.committing:1").wait_ready()
    desk = Desk(run, fleet)
    run.world.s3.fault = "error"  # the picture is not stored when another worker has the record
    order = desk.order(steps=4)
    wait_until(lambda: fleet.was_passed("worker1", "outbox.committing:1"), 30)
    wait_until(lambda: states(fleet, order).count(State.STATE_RUNNING) == 2 or
               State.STATE_FAILED in states(fleet, order), 30)
    run.world.s3.fault = None
    desk.settle()
    assert set(order.ends) == {"succeeded"}, order.ends
    run.note("the job's only attempt was rendered; it was drawn once more, and succeeded")


@scenario(4, "SIGTERM during a long job (drain)",
          "it finishes, commits and ends with status 0 within its grace; the job is drawn once")
def drain(run):
    fleet = run.fleet(counts={"router": 1, "worker": 1, "uploader": 1, "gateway": 1},
                      step_time="100ms")
    desk = Desk(run, fleet)
    order = desk.order(steps=20)
    waiting = desk.order(steps=1)
    desk.wait_for(order, "running")
    began = time.monotonic()
    fleet.leave("worker1", timeout=30)
    run.note(f"the worker ended {time.monotonic() - began:.1f} s after SIGTERM")
    assert time.monotonic() - began > 0.5, "it did not finish its job"
    assert fleet.topics.lag("jobs.default", "worker.default") in (0, 1)  # the waiting one
    fleet.supervisor.hold("worker1")
    desk.settle()
    assert set(order.ends) == {"succeeded"} and set(waiting.ends) == {"succeeded"}
    assert states(fleet, order).count(State.STATE_RUNNING) == 1, "it was drawn twice"


@scenario(5, "rolling restart of the workers and scale 1 -> 8 -> 1 under load",
          "double executions are reported and bounded (at most two for each change); 0 seen twice; "
          "a job that outlasts the joins stays in its first attempt")
def scale(run):
    fleet = run.fleet(counts={"worker": 1}, settings=None,
                      service_settings={"router": {"LANES": "16"}})
    storm = Storm(fleet, run.seed, 120 if run.soak else 80, say=lambda text: None)
    storm.faults = []
    long_job = run.body(steps=100, n=2)  # 10 s, as seven workers join
    storm.orders.append({"at": 0, "body": long_job, "key": "alpha", "gateway": 0, "copies": 1,
                         "idempotent": False, "cancel": None, "watch": False, "probe": False,
                         "number": len(storm.orders)})
    changes = 0

    def change(at, names):
        for i, name in enumerate(names):
            storm.later.append((begin + at + 0.5 * i, lambda name=name: act(name)))

    def act(name):
        nonlocal changes
        changes += 1
        if name not in fleet.services:
            fleet.supervisor.hold(fleet.add(name).start().name)
        elif name != "worker1":
            fleet.supervisor.release(name)
            fleet.signal(name, signal.SIGTERM)
        else:
            fleet.signal(name, signal.SIGTERM)  # the rolling restart: the supervisor starts it
    begin = time.monotonic()
    others = [f"worker{i}" for i in range(2, 9)]
    change(2, others)
    change(9, ["worker1"])
    change(14, others)
    verdict = storm.run()
    run.total.add(verdict)
    run.note(f"{changes} changes, {verdict.again} of {verdict.jobs} jobs drawn more than once")
    assert verdict.is_clean, "\n".join(verdict.problems()[:20])
    assert verdict.again <= 2 * changes, f"{verdict.again} drawn again by {changes} changes"
    [long_id] = [order.id for order in storm.ledger.orders.values() if order.body == long_job]
    attempts = [status.envelope.attempt for status in fleet.topics.read("status", Status)
                if status.envelope.job_id == long_id and status.state == State.STATE_RUNNING]
    run.note(f"the job of 10 s was started {len(attempts)} times")
    assert set(attempts) == {1}, f"it was started as attempts {attempts}"


@scenario(12, "poison: undecodable, crashing (SEGV), out of memory, past its time limit",
          "`deadletter` after at most 3 attempts and the job has failed (past the limit: expired); "
          "its neighbours are not touched")
def poison(run, attempts=3):
    fleet = run.fleet(counts={"router": 1, "worker": 2, "uploader": 1, "gateway": 1},
                      service_settings={"worker": {"JOB_ATTEMPTS_MAX": str(attempts),
                                                   "JOB_TIME_LIMIT": "3s"}})
    desk = Desk(run, fleet)
    before = [desk.order(steps=2) for _ in range(3)]
    crashing = desk.order(prompt="poison: crash", steps=2)
    hungry = desk.order(prompt="poison: memory", steps=2)
    late = desk.order(steps=100)  # 5 s
    fleet.topics.write("requests", b"\xff\xff no protobuf", key=b"poison")
    fleet.topics.write("jobs.default", b"\xff\xff no protobuf", key=b"poison")
    fleet.topics.write("results", b"\xff\xff no protobuf", key=b"poison")
    after = [desk.order(steps=2) for _ in range(5)]
    neighbours, poisoned = (*before, *after), (crashing, hungry, late)
    wait_ended(desk, neighbours, 60)
    wait_ended(desk, poisoned, 90)
    crashes = len(fleet.supervisor.crashes)
    fleet.supervisor.crashes.clear()
    desk.settle(poisoned=["undecodable"] * 3 + ["attempts_exhausted"] * 2)
    for order in neighbours:
        assert set(order.ends) == {"succeeded"}, order.ends
    for order, end in ((crashing, "failed"), (hungry, "failed"), (late, "expired")):
        assert set(order.ends) == {end}, order.ends
    for order in (crashing, hungry):
        runs = states(fleet, order).count(State.STATE_RUNNING)
        assert runs <= attempts, f"started {runs} times"
    assert desk.look(late)["error"]["code"] == "time_limit"
    run.note(f"workers crashed {crashes} times, at most {attempts} a job; "
             f"{len(neighbours)} neighbours succeeded")
    assert 2 <= crashes <= 2 * attempts, f"{crashes} crashes"
