"""More workers, and what the autoscaler would ask for: the ScaledObject's query on real lags."""

import math
import time

import yaml

from integration.test_dispatch import ZERO_WORKER, make_job, submit
from support import messages
from support.processes import TREE, wait_until

STEP_MS = 20


def scaled_object():
    return yaml.safe_load((TREE / "deploy/k8s/components/keda/default.yaml").read_text())["spec"]


def replicas_by_keda(stack, spec):
    """What KEDA and its HPA make of the lags now: each trigger's lag, bounded by partitions unless
    allowIdleConsumers; their sum over the target, between the limits."""
    values = {}
    for trigger in spec["triggers"]:
        data = trigger["metadata"]
        topic = data["topic"].removeprefix("crafterse.")
        group = data["consumerGroup"].removeprefix("crafterse.")
        lag = stack.topics.lag(topic, group)
        if data["allowIdleConsumers"] == "false":
            lag = min(lag, stack.topics.partitions(topic) * int(data["lagThreshold"]))
        values[trigger["name"]] = lag
    modifiers = spec["advanced"]["scalingModifiers"]
    assert modifiers["formula"] == " + ".join(values)
    wanted = math.ceil(sum(values.values()) / float(modifiers["target"]))
    return max(spec["minReplicaCount"], min(wanted, spec["maxReplicaCount"])), sum(values.values())


def drawn(stack):
    return sum(service.metric("crafterse_worker_pictures_total")
               for name, service in stack.services.items()
               if name.startswith("worker") and service.is_running())


def test_lag_grows_with_one_worker_and_falls_with_three(make_stack, capsys):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"],
                       service_settings={"worker": {"STEP_TIME": f"{STEP_MS}ms"}})
    spec = scaled_object()
    assert replicas_by_keda(stack, spec) == (1, 0)
    # A job takes 0.4 s: fifteen at once are six seconds of one worker.
    lags, told, ordered = [], [], 0

    def order(count):
        nonlocal ordered
        jobs = [make_job(steps=20) for _ in range(count)]
        stack.topics.write_all("requests", [job.SerializeToString() for job in jobs])
        ordered += count
        wait_until(lambda: stack.topics.lag("requests", "router") == 0, 20)
        replicas, lag = replicas_by_keda(stack, spec)
        lags.append(lag)
        told.append(replicas)

    order(15)
    order(15)
    assert lags[1] > lags[0] > 1, f"with one worker: {lags}"
    assert told[1] == spec["maxReplicaCount"]
    stack.add("worker2").start()
    stack.add("worker3").start()
    for name in ("worker2", "worker3"):
        stack.services[name].wait_ready()
    wait_until(lambda: replicas_by_keda(stack, spec)[1] < lags[1] / 2, 60)
    order(4)
    wait_until(lambda: replicas_by_keda(stack, spec) == (1, 0), 60)
    wait_until(lambda: drawn(stack) >= ordered, 10)
    with capsys.disabled():
        print(f"\nlag with one worker {lags[:2]}, after two more came {lags[2]}; "
              f"replicas by KEDA {told}")


def test_jobs_that_wait_for_another_attempt_keep_their_workers(make_stack):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"],
                       service_settings={"worker": {"FAILING_DRAWS": "2",
                                                    "JOB_RETRY_FIRST": "4s"}})
    spec = scaled_object()
    jobs = [make_job() for _ in range(2)]
    for job in jobs:
        job.generation.prompt = "fail once"
    submit(stack, *jobs)
    wait_until(lambda: stack.router.metric("crafterse_router_retrying_jobs") == 2, 20)
    wait_until(lambda: replicas_by_keda(stack, spec) == (2, 2), 10)
    wait_until(lambda: stack.router.metric("crafterse_router_queue_lag", pool="default",
                                           **{"class": "retry"}) == 2, 10)
    wait_until(lambda: drawn(stack) == 2, 20)
    wait_until(lambda: replicas_by_keda(stack, spec) == (1, 0), 10)


def test_ten_users_at_once_on_one_worker_are_all_served(stack, client, capsys):
    ids, started = [], time.monotonic()
    for user in range(10):
        ids.append(client.submit(f"the sword of player {user}", seed=user)["id"])
    seconds = []
    for job in ids:
        assert client.wait(job, timeout=120)["state"] == "succeeded"
        seconds.append(time.monotonic() - started)
    seconds.sort()
    waits = [s.envelope.job_id for s in stack.topics.read("status", messages.Status)
             if s.state == messages.State.STATE_SUCCEEDED]
    assert set(ids) <= set(waits)
    with capsys.disabled():
        print(f"\nten at once: first {seconds[0]:.1f} s, median {seconds[4]:.1f}, "
              f"last {seconds[-1]:.1f}")
