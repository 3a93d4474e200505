"""Router and workers alone: jobs written by the test, dispatched by credit to workers whose engine
takes as long as the test wants (zero_worker)."""

import time
import uuid

import pytest

from support import messages
from support.processes import BUILD, wait_until

State = messages.State
ZERO_WORKER = BUILD / "test/bench/zero_worker"
STEP_MS = 50
# Two pools: "default" with two workers, "fast" with one of its own model.
STACK = {
    "s3": None, "redis": None, "worker_binary": ZERO_WORKER,
    "services": ["router", "worker1", "worker2", "worker3"],
    "service_settings": {
        "router": {"POOLS": "default,fast", "WORKER_TTL": "6s"},
        "worker": {"STEP_TIME": f"{STEP_MS}ms"},
        "worker3": {"POOL": "fast", "MODEL_NAME": "quick"},
    },
}


def make_job(steps=2, batch=False, model="zero", deadline_ms=0, pictures=1):
    now_ms = int(time.time() * 1000)
    job = messages.Job(key_id="tests", accepted_ms=now_ms, job_class=1 if batch else 0)
    job.envelope.job_id = str(uuid.uuid4())
    job.envelope.deadline_ms = now_ms + deadline_ms if deadline_ms else 0
    job.generation.prompt = "a sword"
    job.generation.model = model
    job.generation.width = job.generation.height = 64
    job.generation.steps = steps
    job.generation.scheduler = "ddim"
    job.generation.n = pictures
    for index in range(pictures):
        job.images.add(index=index, seed=index, content_hash=uuid.uuid4().hex * 2)
    return job


def submit(stack, *jobs):
    for job in jobs:
        stack.topics.send("requests", job)
    return [job.envelope.job_id for job in jobs]


def states_of(stack, jobs):
    """job id -> its statuses, in order."""
    found = {job: [] for job in jobs}
    for status in stack.topics.read("status", messages.Status):
        if status.envelope.job_id in found:
            found[status.envelope.job_id].append(status)
    return found


def wait_for_end(stack, jobs, timeout=60):
    """Until every job is rendered or ended; returns its statuses."""
    def ended():
        found = states_of(stack, jobs)
        return found if all(any(s.state >= State.STATE_RENDERED for s in statuses)
                            for statuses in found.values()) else None

    def failed():
        pytest.fail("not ended: " + str({job: [s.state for s in statuses]
                                         for job, statuses in states_of(stack, jobs).items()}))
    return wait_until(ended, timeout, failed)


def test_an_order_that_two_gateways_wrote_runs_once(stack):
    job = make_job()
    submit(stack, job, job)
    following = make_job()
    submit(stack, following)
    wait_for_end(stack, [job.envelope.job_id, following.envelope.job_id])
    wait_until(lambda: stack.topics.lag("requests", "router") == 0, 20)
    told = [status.state for status in states_of(stack, [job.envelope.job_id])[job.envelope.job_id]]
    assert told.count(State.STATE_QUEUED) == 1, told
    assert told.count(State.STATE_RUNNING) == 1, told


def test_an_order_under_the_key_of_one_that_has_ended_and_is_forgotten_runs(stack):
    job = make_job()
    job_id, = submit(stack, job)
    wait_for_end(stack, [job_id])
    end = messages.Status(state=State.STATE_SUCCEEDED)
    end.envelope.job_id = job_id
    end.envelope.sent_ms = int(time.time() * 1000)
    stack.topics.send("status", end)
    time.sleep(0.3)  # router and workers have read it

    def runs():
        return [s.state for s in states_of(stack, [job_id])[job_id]].count(State.STATE_RENDERED)
    submit(stack, job)  # what a router reads again after a crash is of the order that has ended
    following, = submit(stack, make_job())
    wait_for_end(stack, [following])
    wait_until(lambda: stack.topics.lag("requests", "router") == 0, 20)
    assert runs() == 1
    job.accepted_ms = int(time.time() * 1000)
    submit(stack, job)
    wait_until(lambda: runs() == 2, 20)


def test_two_runs_of_one_picture_that_failed_do_not_wait_for_each_other(stack):
    """Two routers may start both at once; each is a run that the other could join."""
    jobs = [make_job(), make_job()]
    for job in jobs:
        job.images[0].content_hash = jobs[0].images[0].content_hash
        job.pool, job.envelope.attempt = "default", 1
        job.not_before_ms = int(time.time() * 1000) + 500
        told = messages.Status(state=State.STATE_RUNNING, pool="default", lane=-1,
                               retry_at_ms=job.not_before_ms, images=job.images)
        told.envelope.CopyFrom(job.envelope)
        stack.topics.send("status", told)
    for job in jobs:
        stack.topics.send("retry.default", job)
    wait_for_end(stack, [job.envelope.job_id for job in jobs], timeout=15)


def time_of(statuses, state):
    return next(s.envelope.sent_ms for s in statuses if s.state == state)


def check_credit(found, credit=1, slack_ms=40):
    """No worker had more unfinished jobs than its credit at any moment."""
    spans = {}
    for statuses in found.values():
        running = [s for s in statuses if s.state == State.STATE_RUNNING]
        assert len(running) == 1, "a job ran more than once"
        spans.setdefault(running[0].worker_id, []).append(
            (time_of(statuses, State.STATE_DISPATCHED) + slack_ms,
             time_of(statuses, State.STATE_RENDERED)))
    for worker, times in spans.items():
        for start, _ in times:
            assert sum(a <= start < b for a, b in times) <= credit, f"{worker}: {sorted(times)}"
    return spans


def test_a_worker_holds_one_job_and_all_workers_work(stack):
    jobs = submit(stack, *(make_job(steps=4) for _ in range(12)))
    spans = check_credit(wait_for_end(stack, jobs))
    assert sorted(len(times) for times in spans.values()) >= [4, 4]


def test_nobody_waits_behind_a_long_job_while_a_worker_idles(stack):
    long_job, *short_jobs = submit(stack, make_job(steps=80), *(make_job() for _ in range(6)))
    found = wait_for_end(stack, [long_job, *short_jobs])
    long_end = time_of(found[long_job], State.STATE_RENDERED)
    for job in short_jobs:
        assert time_of(found[job], State.STATE_RENDERED) < long_end


def test_interactive_goes_first_but_batch_does_not_starve(stack):
    submit(stack, make_job(steps=80), make_job(steps=80))  # both workers are busy meanwhile
    batch = submit(stack, *(make_job(batch=True) for _ in range(4)))
    interactive = submit(stack, *(make_job() for _ in range(24)))
    found = wait_for_end(stack, batch + interactive)
    order = sorted(batch + interactive, key=lambda job: time_of(found[job],
                                                                State.STATE_DISPATCHED))
    turns = [place for place, job in enumerate(order) if job in batch]
    assert turns[0] <= 8, "batch starved"
    assert all(b - a <= 8 for a, b in zip(turns, turns[1:])), f"batch starved: {turns}"
    assert sum(job in interactive for job in order[:16]) >= 13, f"interactive waited: {turns}"


def test_a_full_pool_does_not_block_another(stack):
    slow = submit(stack, *(make_job(steps=30) for _ in range(6)))
    quick = submit(stack, make_job(model="quick"))
    found = wait_for_end(stack, slow + quick)
    first = min(time_of(found[job], State.STATE_RENDERED) for job in slow)
    assert time_of(found[quick[0]], State.STATE_RENDERED) < first


def test_pictures_of_one_job_come_in_order_before_rendered(stack):
    job = submit(stack, make_job(pictures=3))[0]
    found = wait_for_end(stack, [job])
    results = [r for r in stack.topics.read("results", messages.Result)
               if r.envelope.job_id == job]
    assert [r.image.index for r in results] == [0, 1, 2]
    assert all(r.png.startswith(b"\x89PNG") for r in results)
    assert all(r.rendered_ms <= time_of(found[job], State.STATE_RENDERED) for r in results)


def test_a_job_that_waits_past_its_deadline_expires_though_no_worker_is_free(stack):
    submit(stack, *(make_job(steps=40) for _ in range(2)))
    expiring = submit(stack, *(make_job(deadline_ms=800) for _ in range(3)))
    found = wait_for_end(stack, expiring)
    for statuses in found.values():
        assert statuses[-1].state == State.STATE_EXPIRED
        assert statuses[-1].reason == "deadline_passed"


def test_a_cancelled_job_in_the_queue_never_starts(stack):
    submit(stack, *(make_job(steps=30) for _ in range(2)))
    waiting = submit(stack, make_job())[0]
    cancel = messages.Control(kind=0, requested_by="tests")
    cancel.envelope.job_id = waiting
    stack.topics.send("control", cancel)
    statuses = wait_for_end(stack, [waiting])[waiting]
    assert statuses[-1].state == State.STATE_CANCELLED
    time.sleep(2)
    assert all(s.state != State.STATE_RUNNING for s in states_of(stack, [waiting])[waiting])


def test_progress_is_told_at_most_twenty_times_a_second(stack):
    job = submit(stack, make_job(steps=20))[0]
    wait_for_end(stack, [job])
    steps = [p for p in stack.topics.read("progress", messages.Progress)
             if p.envelope.job_id == job]
    assert steps[-1].step == steps[-1].steps == 20
    assert 2 <= len(steps) <= 25


def test_lag_and_unfinished_jobs_come_back_to_nothing(stack):
    jobs = submit(stack, *(make_job() for _ in range(4)))
    wait_for_end(stack, jobs)
    for topic, group in (("requests", "router"), ("queue.default.interactive", "router"),
                         ("jobs.default", "worker.default")):
        wait_until(lambda t=topic, g=group: stack.topics.lag(t, g) == 0, 20,
                   lambda t=topic: pytest.fail(f"{t} keeps its lag"))
        wait_until(lambda t=topic, g=group: stack.router.metric(
            "crafterse_router_queue_lag", topic=stack.prefix + t, group=stack.prefix + g) == 0, 5)
    wait_until(lambda: stack.router.metric("crafterse_router_unfinished_jobs",
                                           pool="default") == 0, 5)


def test_a_model_that_a_gateway_has_heard_of_is_given_time_to_be_announced(stack):
    heard_of, unknown = make_job(model="tomorrow"), make_job(model="never")
    heard_of.generation.model_digest = "ab" * 32
    jobs = submit(stack, heard_of, unknown)
    written_ms = time.time() * 1000
    waited, refused = (statuses[-1] for statuses in wait_for_end(stack, jobs).values())
    assert [waited.reason, refused.reason] == ["no_capacity", "no_capacity"]
    assert waited.envelope.sent_ms - heard_of.accepted_ms >= 1900
    assert refused.envelope.sent_ms - written_ms < 1500


def test_a_router_starts_from_kafka_alone(make_stack):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"],
                       service_settings={"worker": {"STEP_TIME": f"{STEP_MS}ms"}})
    jobs = submit(stack, *(make_job(steps=10) for _ in range(8)))
    wait_until(lambda: any(s.state == State.STATE_RUNNING for statuses in
                           states_of(stack, jobs).values() for s in statuses), 20)
    stack.router.kill()
    stack.restart("router")
    check_credit(wait_for_end(stack, jobs))


def test_a_pool_without_workers_keeps_its_jobs_for_the_grace_time_then_refuses(make_stack):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"],
                       service_settings={"router": {"WORKER_TTL": "1s", "POOL_GRACE": "6s"}})
    stack.worker1.stop_cleanly()
    assert (b"worker1", None) in stack.topics.records("workers"), "no goodbye"
    waiting = submit(stack, make_job())[0]
    wait_until(lambda: states_of(stack, [waiting])[waiting], 10)
    assert [s.state for s in states_of(stack, [waiting])[waiting]] == [State.STATE_QUEUED]
    time.sleep(8)
    refused = submit(stack, make_job())[0]
    status = wait_for_end(stack, [refused])[refused][-1]
    assert (status.state, status.reason) == (State.STATE_FAILED, "no_capacity")
    stack.restart("worker1")
    wait_for_end(stack, [waiting])


def test_a_job_that_runs_too_long_fails(make_stack):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"],
                       service_settings={"worker": {"STEP_TIME": "50ms",
                                                    "JOB_TIME_LIMIT": "1s"}})
    job, next_job = submit(stack, make_job(steps=200), make_job())
    found = wait_for_end(stack, [job, next_job])
    assert (found[job][-1].state, found[job][-1].reason) == (State.STATE_EXPIRED, "time_limit")
    assert found[next_job][-1].state == State.STATE_RENDERED


def test_a_worker_that_drains_finishes_its_job_and_takes_no_other(make_stack):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"],
                       service_settings={"worker": {"STEP_TIME": f"{STEP_MS}ms"},
                                         "router": {"LANE_CREDIT": "2"}})
    running, behind = submit(stack, make_job(steps=40), make_job(steps=2))
    wait_until(lambda: any(s.state == State.STATE_RUNNING for statuses in
                           states_of(stack, [running, behind]).values() for s in statuses), 20)
    stack.worker1.stop_cleanly()
    found = states_of(stack, [running, behind])
    rendered = [job for job in found if found[job][-1].state == State.STATE_RENDERED]
    assert len(rendered) >= 1
    assert stack.topics.lag("jobs.default", "worker.default") == 2 - len(rendered)
    stack.restart("worker1")
    wait_for_end(stack, [running, behind])


def test_a_cancellation_of_days_ago_is_known_and_not_told_again(make_stack):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"])
    waiting, unheard = make_job(), make_job()
    for job, days in ((waiting, 5), (unheard, 5)):
        cancel = messages.Control(kind=0, requested_by="tests")
        cancel.envelope.job_id = job.envelope.job_id
        cancel.envelope.sent_ms = int((time.time() - days * 86400) * 1000)
        stack.topics.send("control", cancel)
    stack.router.stop_cleanly()
    submit(stack, waiting)
    stack.restart("router").wait_ready()
    ids = [waiting.envelope.job_id, unheard.envelope.job_id]
    found = wait_for_end(stack, ids[:1])
    assert [s.state for s in found[ids[0]]] == [State.STATE_CANCELLED]
    time.sleep(0.5)
    # The first router heard of it as it came; the second one has nothing to add.
    assert len(states_of(stack, ids)[ids[1]]) <= 1
