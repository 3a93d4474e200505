"""How many jobs a second go through all services with an engine that takes no time, on Apache
Kafka; what they cost; how long one takes at half the promised rate; and how much more memory each
service holds after many jobs than after the first fifth of them (BENCH_JOBS, 100,000 unless set).

Orders have no seed, so each is a new picture, and each client waits for its picture before it
orders the next. Processor seconds are told beside the rate, because on a machine that others use
the rate is what they left over: two processors make 2000 / (milliseconds a job) jobs a second.
"""

import json
import os
import tempfile
from pathlib import Path

from bench_pipeline import order, percentile
from load import Wrk, cpu_seconds
from support import nodes
from support.processes import BUILD
from support.stack import Stack

ZERO_WORKER = BUILD / "test/bench/zero_worker"
JOBS = int(os.environ.get("BENCH_JOBS", "100000"))
WORKERS = 4
LANE_CREDIT = 16  # a worker has the next jobs at hand while a picture takes no time
# The first 10,000 jobs or so after Kafka's start cost nearly twice as much: Java compiles.
WARM_UP_SECONDS, WARM_UP_ROUNDS_MAX = 5, 24
COMPILER, COMPILING_CORES = "C2 Compiler", 0.05
CLIENTS = 64
SECONDS = 10
RATE_TARGET = 500
HALF_RATE_SECONDS = 20
P50_TARGET_MS = 20
P99_TARGET_MS = 100
# Flat: no more than what an allocator's arenas and a page of a table here and there make.
GROWTH_TARGET_MB = 4
BODY = {"prompt": "a flaming obsidian sword", "width": 64, "height": 64, "steps": 1,
        "cache": "bypass"}


def row(name, value, unit, target=None, at_least=None):
    holds = None if target is None else value >= target if at_least else value <= target
    return {"name": f"throughput.{name}", "value": round(value, 3), "unit": unit,
            "reference": None, "target": target, "at_least": at_least, "holds": holds}


def kind_of(name):
    return name.rstrip("0123456789")


def cpu_by_kind(stack, broker):
    used = {"kafka": cpu_seconds(broker.pid)}
    for name, service in stack.services.items():
        used[kind_of(name)] = used.get(kind_of(name), 0) + cpu_seconds(service.pid)
    return used


def memory_mb(stack):
    return {name: service.memory_mib() * 1.048576 for name, service in stack.services.items()}


def succeeded(stack):
    return stack.gateway.metric("crafterse_gateway_job_seconds_count")


def warm_up(wrk, url, broker):
    for _ in range(WARM_UP_ROUNDS_MAX):
        before = cpu_seconds(broker.pid, COMPILER)
        wrk.run(url, WARM_UP_SECONDS, CLIENTS)
        if cpu_seconds(broker.pid, COMPILER) - before < COMPILING_CORES * WARM_UP_SECONDS:
            return


def measure_rate(stack, wrk, url, broker):
    cpu, jobs = cpu_by_kind(stack, broker), succeeded(stack)
    result = wrk.run(url, SECONDS, CLIENTS)
    jobs = succeeded(stack) - jobs
    assert jobs >= result["requests"], f"{result['requests']} answers, {jobs:.0f} succeeded"
    after = cpu_by_kind(stack, broker)
    rows = [row("jobs_per_second", jobs / result["seconds"], "1/s", RATE_TARGET, True),
            row("clients_64_p50", result["p50_ms"], "ms"),
            row("clients_64_p99", result["p99_ms"], "ms")]
    costs = {kind: 1000 * (after[kind] - cpu[kind]) / jobs for kind in cpu}
    rows.append(row("cpu_per_job", sum(costs.values()), "ms"))
    return rows + [row(f"cpu_per_job.{kind}", cost, "ms") for kind, cost in costs.items()]


def measure_half_rate(stack):
    took = order(stack, RATE_TARGET // 2, RATE_TARGET // 2 * HALF_RATE_SECONDS, 1000)
    return [row("half_rate_p50", percentile(took, 0.50), "ms", P50_TARGET_MS, False),
            row("half_rate_p99", percentile(took, 0.99), "ms", P99_TARGET_MS, False)]


def measure_growth(stack, wrk, url):
    first = succeeded(stack)
    while succeeded(stack) - first < JOBS / 5:
        wrk.run(url, SECONDS, CLIENTS)
    before = memory_mb(stack)
    while succeeded(stack) - first < JOBS:
        wrk.run(url, SECONDS, CLIENTS)
    after = memory_mb(stack)
    return [row(f"memory_growth.{name}", after[name] - before[name], "MB", GROWTH_TARGET_MB, False)
            for name in after]


def measure():
    with tempfile.TemporaryDirectory(prefix="crafterse-bench-") as folder, \
            tempfile.TemporaryDirectory(prefix="crafterse-bench-", dir="/dev/shm") as memory:
        nodes.check_kafka_installed()
        broker = nodes.Kafka(folder, as_on_a_server=True).start()
        # The gateway's table of jobs is full after the first fifth.
        stack = Stack(Path(folder) / "stack", broker.brokers, worker_binary=ZERO_WORKER,
                      workers=WORKERS,
                      settings={"LOG_LEVEL": "info", "RATE_PER_MINUTE": "0",
                                "STORE_FOLDER": memory},
                      service_settings={"router": {"LANE_CREDIT": LANE_CREDIT},
                                        "gateway": {"JOBS_MAX": max(JOBS // 10, 1000),
                                                    "JOBS_IN_FLIGHT_MAX": 1000,
                                                    "CACHE_ENTRIES_MAX": max(JOBS // 10, 1000)}})
        try:
            stack.start()
            url = f"http://127.0.0.1:{stack.gateway.port('http')}/v1/generations"
            wrk = Wrk(folder, "order", "POST", json.dumps(BODY), stack.key,
                      'wrk.headers["Prefer"] = "wait=20"')
            warm_up(wrk, url, broker.process)
            rows = measure_rate(stack, wrk, url, broker.process)
            rows += measure_half_rate(stack)
            rows += measure_growth(stack, wrk, url)
            stack.stop()
        finally:
            stack.kill_all()
            broker.stop()
    return rows
