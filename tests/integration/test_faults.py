"""Crashes, outages and long jobs: an accepted job still ends, once, and the rest goes on.
test_chaos.py has kill -9 at each step, the drain and jobs that kill their worker."""

import time

from support import messages
from support.processes import BUILD, wait_until

SMALL = {"width": 64, "height": 64, "steps": 2, "cache": "bypass"}
# Seconds of work, so that a fault can hit in the middle.
MIDDLE = {"width": 128, "height": 128, "steps": 120, "cache": "bypass"}
ZERO_WORKER = BUILD / "test/bench/zero_worker"


def states(stack, job_id):
    return [status.state for status in stack.topics.statuses(job_id)]


def test_a_worker_that_is_killed_is_counted_as_an_attempt(make_stack, s3):
    stack = make_stack(s3=s3)
    job = stack.client.submit("a hard sword", **MIDDLE)["id"]
    stack.client.wait_for(job, "running")
    stack.worker1.kill()
    stack.restart("worker1")
    end = stack.check_one_end([job], timeout=90)[job]
    assert end["state"] == "succeeded"
    assert end["attempts"] == 2


def test_a_broker_that_crashes_loses_no_accepted_job(own_kafka, make_stack, s3):
    stack = make_stack(brokers=own_kafka.brokers, s3=s3)
    client = stack.client
    jobs = [client.submit("a durable sword", seed=seed, **(MIDDLE if seed == 0 else SMALL))["id"]
            for seed in range(4)]
    client.wait_for(jobs[0], "running")
    own_kafka.kill()
    time.sleep(1)
    for service in stack.services.values():
        assert service.is_running(), f"{service.name} ended because Kafka went away"
        assert service.get("/healthz").status_code == 200
    own_kafka.start()
    ends = stack.check_one_end(jobs, timeout=120)
    assert {end["state"] for end in ends.values()} == {"succeeded"}
    stack.wait_ready()
    client.draw("the next one", seed=9, **SMALL)


def test_without_kafka_nothing_is_accepted_and_the_client_is_told(own_kafka, make_stack, s3):
    stack = make_stack(brokers=own_kafka.brokers, s3=s3)
    client = stack.client
    client.draw("before", seed=1, **SMALL)
    own_kafka.kill()
    answer = client.post({"prompt": "lost?", **SMALL})
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["message"]
    own_kafka.start()
    wait_until(lambda: client.post({"prompt": "after", **SMALL}).status_code == 202, 60)


def test_redis_away_is_slower_and_nothing_else(own_redis, make_stack, s3):
    stack = make_stack(s3=s3, redis=own_redis)
    client = stack.client
    client.draw("with", seed=1, width=64, height=64, steps=2)
    own_redis.kill()
    job = client.draw("without", seed=2, width=64, height=64, steps=2)
    assert job["url"]
    own_redis.start()
    client.draw("with again", seed=3, width=64, height=64, steps=2)


def test_a_store_that_is_away_delays_jobs_and_loses_none(make_stack, s3):
    stack = make_stack(s3=s3, service_settings={"router": {"RESULTS_WAITING_MAX": "30KiB"}})
    client = stack.client
    s3.fault = "down"
    # 12 KB each, drawn one after the other for longer than the router takes to ask Kafka.
    jobs = [client.submit("a delayed sword", seed=seed, **{**SMALL, "steps": 60})["id"]
            for seed in range(8)]

    def rendered():
        return [job_id for job_id in jobs
                if messages.State.STATE_RENDERED in states(stack, job_id)]
    wait_until(lambda: not stack.uploader.is_ready(), 30)
    wait_until(lambda: stack.router.metric("crafterse_router_results_full") == 1, 30)
    # Of what may wait in `results` no more is drawn: Kafka deletes it, stored or not.
    time.sleep(1)
    drawn = rendered()
    assert 3 <= len(drawn) <= 5, len(drawn)
    assert stack.router.metric("crafterse_router_results_waiting_bytes") > 30 * 1024
    assert stack.router.is_ready()
    for job_id in drawn:
        assert client.get(job_id)["state"] == "rendered"
    s3.fault = None
    ends = stack.check_one_end(jobs)
    assert {end["state"] for end in ends.values()} == {"succeeded"}
    assert stack.router.metric("crafterse_router_results_full") == 0


def test_a_job_longer_than_the_poll_interval_keeps_its_worker_in_the_group(make_stack, s3):
    assert ZERO_WORKER.exists(), f"{ZERO_WORKER} is missing: run `make test`, which builds it"
    stack = make_stack(s3=s3, worker_binary=ZERO_WORKER, service_settings={"worker": {
        "STEP_TIME": "1s", "KAFKA_EXTRA": "session.timeout.ms=6000;max.poll.interval.ms=7000"}})
    job = stack.client.submit("a slow sword", width=64, height=64, steps=16)["id"]
    end = stack.check_one_end([job], timeout=60)[job]
    assert end["state"] == "succeeded"
    assert end["attempts"] == 1
    assert states(stack, job).count(messages.State.STATE_RUNNING) == 1
    assert end["timings"]["total_ms"] >= 15000


def test_a_second_router_and_uploader_take_over(make_stack, s3):
    stack = make_stack(s3=s3)
    for name in ("router2", "uploader2"):
        stack.add(name).start().wait_ready()
    client = stack.client
    jobs = [client.submit("an endless stream", seed=seed, **SMALL)["id"] for seed in range(6)]
    stack.router.kill()
    stack.uploader.kill()
    jobs += [client.submit("an endless stream", seed=seed, **SMALL)["id"] for seed in range(6, 12)]
    ends = stack.check_one_end(jobs, timeout=90)
    assert {end["state"] for end in ends.values()} == {"succeeded"}


def test_a_killed_gateway_knows_its_jobs_when_it_is_back(make_stack, s3):
    stack = make_stack(s3=s3)
    job = stack.client.draw("a remembered sword", seed=6, **SMALL)
    stack.gateway.kill()
    stack.restart("gateway").wait_ready()
    again = stack.client.get(job["id"])
    assert again["state"] == "succeeded"
    assert again["url"].rpartition("/")[2] == job["url"].rpartition("/")[2]
    assert list(stack.client.events(job["id"]))[-1][1] == "done"


def test_partitions_that_are_added_to_status_are_read_after_a_restart(make_stack):
    stack = make_stack(services=["gateway", "router"], service_settings={
        name: {"KAFKA_EXTRA": "topic.metadata.refresh.interval.ms=500"}
        for name in ("gateway", "router")})
    stack.topics.add_partitions("status", 8)
    for service in (stack.gateway, stack.router):
        wait_until(lambda: not service.is_running(), 20)
        assert service.child.returncode == 1
        assert "status has more than the 4 partitions" in service.log()
