"""What the services export, against its page, against what rules and dashboards ask for, and
against what Kafka's own tool says."""

import json
import os
import re
import time
from pathlib import Path

from integration.test_dispatch import ZERO_WORKER, make_job, submit
from support import metrics_page
from support.nodes import kafka_tool
from support.processes import TREE, wait_until
from support.stack import parse_metrics

SERVICES = ("gateway", "router", "worker", "uploader")
STACK = {"service_settings": {"worker": {"PRICE_PER_HOUR": "3.6"}}}


def expositions(stack):
    return {name: stack.services["worker1" if name == "worker" else name].get("/metrics").text
            for name in SERVICES}


def exported_names(stack):
    """Every name that a query can use, buckets and sums of histograms included."""
    return {name for text in expositions(stack).values() for name, _, _ in parse_metrics(text)}


def test_a_picture_is_counted_at_every_stage(stack, client):
    job = client.draw("a shield of oak")
    assert job["state"] == "succeeded"
    worker, gateway = stack.services["worker1"], stack.gateway
    wait_until(lambda: gateway.metric("crafterse_gateway_job_seconds_count") == 1, 5)
    for stage in ("admit", "queue", "start", "draw", "upload"):
        assert gateway.metric("crafterse_gateway_job_stage_seconds_count", stage=stage) == 1
    for stage in ("model_load", "text", "denoise", "decode", "encode"):
        assert worker.metric("crafterse_worker_stage_seconds_count", stage=stage) == 1
    model = worker.metric("crafterse_worker_model_info", model="tiny-sdxl")
    assert model == worker.metric("crafterse_worker_model_loaded") == 1
    assert worker.metric("crafterse_worker_step_seconds_count", model="tiny-sdxl") > 0
    assert worker.metric("crafterse_worker_retries_total") == 0


def test_a_job_that_fails_is_counted_by_its_reason(stack, client):
    before = stack.gateway.metric("crafterse_gateway_job_failures_total")
    job = client.submit("a sword", steps=2, n=8)
    client.cancel(job["id"])
    wait_until(lambda: stack.gateway.metric("crafterse_gateway_job_failures_total") == before + 1,
               30)
    assert stack.gateway.metric("crafterse_gateway_job_failures_total",
                                reason="cancelled_by_client") == 1


def test_a_worker_costs_its_price_for_as_long_as_it_runs(stack):
    worker = stack.services["worker1"]
    start = time.monotonic()
    cost = worker.metric("crafterse_worker_cost_dollars_total", provider="own")
    time.sleep(1)
    more = worker.metric("crafterse_worker_cost_dollars_total", provider="own") - cost
    # 3.6 dollars an hour are a tenth of a cent a second.
    assert 0.0005 < more < 0.001 * (time.monotonic() - start) + 0.0005


def test_a_gateway_that_starts_again_does_not_count_old_jobs_once_more(stack, client):
    finished = stack.gateway.metric("crafterse_gateway_jobs_finished_total")
    assert finished > 0
    stack.restart("gateway")
    wait_until(lambda: stack.gateway.metric("crafterse_gateway_jobs", state="succeeded") > 0, 20)
    assert stack.gateway.metric("crafterse_gateway_jobs_finished_total") == 0
    assert stack.gateway.metric("crafterse_gateway_job_seconds_count") == 0


def test_the_page_lists_what_is_exported(stack):
    page = metrics_page.render(expositions(stack))
    if os.environ.get("CRAFTERSE_WRITE_DOCS"):
        metrics_page.PAGE.write_text(page)
    assert metrics_page.PAGE.read_text() == page, \
        "docs/METRICS.md is stale: CRAFTERSE_WRITE_DOCS=1 tests/run integration test_metrics"


def test_rules_and_dashboards_ask_for_what_there_is(stack):
    there = exported_names(stack)
    asked = {}
    for path in sorted(TREE.glob("deploy/monitoring/rules/*.yml")):
        asked[path.name] = path.read_text()
    for path in sorted(TREE.glob("deploy/monitoring/grafana/dashboards/*.json")):
        queries = []
        for panel in json.loads(path.read_text())["panels"]:
            queries += [target["expr"] for target in panel.get("targets", [])]
        asked[path.name] = "\n".join(queries)
    for path in sorted(Path(TREE / "deploy/k8s").rglob("*.yaml")):
        asked[str(path.relative_to(TREE))] = path.read_text()
    missing = {(name, where) for where, text in asked.items()
               for name in re.findall(r"\b(?:crafterse|process)_[a-z0-9_]+\b", text)
               if name not in there}
    assert not missing
    assert len(asked) > 12


def kafka_consumer_groups(brokers):
    """{(group, topic): lag} as Kafka's own tool tells it."""
    told = kafka_tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
                      "--bootstrap-server", brokers, "--describe", "--all-groups",
                      "--timeout", 60000)
    lags = {}
    for line in told.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[2].isdigit() and fields[5].isdigit():
            key = (fields[0], fields[1])
            lags[key] = lags.get(key, 0) + int(fields[5])
    assert lags, f"it told no lag: {told}"
    return lags


def test_lag_is_what_kafka_consumer_groups_says(make_stack, kafka):
    stack = make_stack(worker_binary=ZERO_WORKER, services=["router", "worker1"],
                       service_settings={"worker": {"STEP_TIME": "5ms"}})
    # The tool knows no lag of a partition in which the group has not committed yet ("-"); we count
    # from its beginning, as a member would read it. So every partition gets its first commit.
    submit(stack, *[make_job() for _ in range(32)], *[make_job(batch=True) for _ in range(32)])
    wait_until(lambda: stack.services["worker1"].metric("crafterse_worker_pictures_total") == 64,
               60)
    wait_until(lambda: stack.topics.lag("jobs.default", "worker.default") == 0, 20)
    # Nobody works any more: what is sent now stays where it is.
    stack.services["worker1"].kill()
    submit(stack, *[make_job() for _ in range(5)], make_job(batch=True))

    def waits():
        """five jobs in the queues, one in the dead worker's lane"""
        return (stack.router.metric("crafterse_router_queue_lag", pool="default") == 6 and
                stack.topics.lag("requests", "router") == 0)
    wait_until(waits, 30)
    lags = kafka_consumer_groups(kafka.brokers)
    ours = {(labels["group"], labels["topic"]): number for name, labels, number
            in stack.router.metrics() if name == "crafterse_router_queue_lag"}
    compared = {key for key in ours if key in lags}
    assert {key: ours[key] for key in compared} == {key: lags[key] for key in compared}
    names = {topic.removeprefix(stack.prefix) for _, topic in compared}
    assert {"requests", "queue.default.interactive", "queue.default.batch",
            "jobs.default"} <= names
    assert sum(ours[key] for key in compared) == 6
