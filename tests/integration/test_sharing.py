"""Orders of the same picture that meet on their way share one run, and part from it one by one."""

import time

from support import messages
from support.processes import BUILD, wait_until

State = messages.State
STEP_MS = 50
STACK = {"redis": None, "worker_binary": BUILD / "test/bench/zero_worker", "workers": 2,
         "settings": {"WORKER_TTL": "6s"},
         "service_settings": {"worker": {"STEP_TIME": f"{STEP_MS}ms"},
                              "gateway": {"CACHE_ENTRIES_MAX": "16"}}}


def order(client, seed, seconds, **fields):
    """A picture that takes this long; equal seeds are equal pictures."""
    return client.submit("a sword", seed=seed, width=64, height=64,
                         steps=int(seconds * 1000 / STEP_MS), **fields)["id"]


def check_runs(stack, jobs, count):
    """So often a worker started on any of the jobs."""
    told = [(jobs.index(job) + 1, State.Name(s.state), s.reason, s.envelope.sender)
            for job in jobs for s in stack.topics.statuses(job)]
    runs = sum(state == "STATE_RUNNING" for _, state, _, _ in told)
    assert runs == count, "\n".join(map(str, told))


def wait_running(client, job):
    return client.wait_for(job, "running", timeout=20)


def controls(stack, kind):
    return [c.envelope.job_id for c in stack.topics.read("control", messages.Control)
            if c.kind == kind]


def wait_shared(stack, job):
    wait_until(lambda: job in controls(stack, messages.ControlKind.Value("CONTROL_SHARE")), 20)


def two_on_one_run(stack, client, seed, seconds, **fields):
    """Two orders of one picture: the first one's run is being drawn, the second has joined it."""
    first = order(client, seed, seconds, **fields)
    wait_running(client, first)
    second = order(client, seed, seconds)
    wait_shared(stack, first)
    return first, second


def test_equal_orders_run_once_and_all_get_the_picture(stack, client):
    jobs = [order(client, 1, 2) for _ in range(5)]
    ends = stack.check_one_end(jobs)
    assert {end["state"] for end in ends.values()} == {"succeeded"}
    assert len({end["url"] for end in ends.values()}) == 1
    check_runs(stack, jobs, 1)


def test_pictures_that_differ_do_not_share(stack, client):
    jobs = [order(client, 10, 0.2), order(client, 11, 0.2), order(client, 10, 0.25)]
    ends = stack.check_one_end(jobs)
    assert len({end["url"] for end in ends.values()}) == 3
    check_runs(stack, jobs, 3)


def test_who_bypasses_the_cache_draws_anew(stack, client):
    first = order(client, 20, 1)
    wait_running(client, first)
    second = order(client, 20, 1, cache="bypass")
    stack.check_one_end([first, second])
    check_runs(stack, [first, second], 2)


def test_cancelling_a_joined_order_ends_it_alone(stack, client):
    first, second = two_on_one_run(stack, client, 30, 3)
    client.cancel(second)
    assert client.wait(second)["state"] == "cancelled"
    assert client.wait(first)["state"] == "succeeded"
    check_runs(stack, [first, second], 1)
    wait_until(lambda: first in controls(stack, messages.ControlKind.Value("CONTROL_RELEASE")), 10)


def test_cancelling_the_first_order_leaves_its_run_to_the_others(stack, client):
    first, second = two_on_one_run(stack, client, 40, 3)
    client.cancel(first)
    assert client.wait(first)["state"] == "cancelled"
    ends = stack.check_one_end([first, second])
    assert ends[second]["state"] == "succeeded"
    assert ends[first]["images"][0]["url"] is None
    check_runs(stack, [first, second], 1)


def test_the_run_stops_when_the_last_order_has_left(stack, client):
    first, second = two_on_one_run(stack, client, 50, 20)
    client.cancel(first)
    assert client.wait(first)["state"] == "cancelled"
    client.cancel(second)
    assert client.wait(second)["state"] == "cancelled"
    # The workers are free long before the 20 seconds are over.
    began = time.monotonic()
    others = [order(client, 51 + i, 0.1) for i in range(4)]
    stack.check_one_end(others)
    wait_until(lambda: all(stack.services[f"worker{i}"].metric("crafterse_worker_busy") == 0
                           for i in (1, 2)), 10)
    assert time.monotonic() - began < 10
    # Who comes now is not told to wait for a run that is no more.
    third = order(client, 50, 0.2)
    assert client.wait(third)["state"] == "succeeded"


def test_the_first_orders_deadline_ends_it_alone(stack, client):
    first, second = two_on_one_run(stack, client, 60, 3, deadline=1.5)
    assert client.wait(first)["state"] == "expired"
    assert client.wait(second)["state"] == "succeeded"
    check_runs(stack, [first, second], 1)


def test_a_router_that_starts_anew_remembers_who_waits_for_whom(stack, client):
    first, second = two_on_one_run(stack, client, 70, 4)
    stack.router.kill()
    stack.restart("router").wait_ready()
    ends = stack.check_one_end([first, second])
    assert {end["state"] for end in ends.values()} == {"succeeded"}
    check_runs(stack, [first, second], 1)


def test_a_worker_that_dies_costs_the_run_and_no_order(stack, client):
    first, second = two_on_one_run(stack, client, 80, 3)
    client.cancel(first)
    assert client.wait(first)["state"] == "cancelled"
    busy = next(name for name in ("worker1", "worker2")
                if stack.services[name].metric("crafterse_worker_busy") == 1)
    stack.services[busy].kill()
    stack.restart(busy)
    assert client.wait(second, timeout=60)["state"] == "succeeded"
    assert client.get(first)["state"] == "cancelled"
