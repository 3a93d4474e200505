"""How many orders of a realistic mix the cache answers, by its mode.

The mix is made up, but not to suit: 10,000 prompts that are asked for as Zipf's law has it (the
k-th most popular one 1/k as often as the first), as is found for words, titles and search terms.
Half of the orders name the seed that belongs to their prompt, as a game does that asks for "the
iron sword" again; the other half name none, as people do who try what comes. Orders come several at
a time, so some meet on their way: those share a run (drawn once, but not counted as hits).

Each mode is run on its own stack: devbroker, no Redis, one worker that takes no time.
"""

import random
import tempfile
import threading
from pathlib import Path

import requests

from support import nodes
from support.processes import BUILD
from support.stack import BIN, Stack

ZERO_WORKER = BUILD / "test/bench/zero_worker"
PROMPTS = 10_000
ORDERS = 6_000
CLIENTS = 16
SEEDED = 0.5
# The requirement on the mix, for the mode that is made for it; the others are only told.
TARGETS = {"any-seed": 40.0}
MODES = ("exact", "any-seed", "bypass")


def make_mix(seed=1):
    """(prompt number, names its seed) of every order, the same in every run."""
    chance = random.Random(seed)
    weights = [1 / rank for rank in range(1, PROMPTS + 1)]
    return [(prompt, chance.random() < SEEDED)
            for prompt in chance.choices(range(PROMPTS), weights, k=ORDERS)]


def run_clients(stack, mix, mode):
    """HTTP statuses of all orders; each is waited for."""
    url = f"http://127.0.0.1:{stack.gateway.port('http')}/v1/generations"
    orders = iter(list(enumerate(mix)))
    lock = threading.Lock()
    statuses, problems = [], []

    def work():
        session = requests.Session()
        session.headers.update({"Authorization": f"Bearer {stack.key}", "Prefer": "wait=30"})
        while True:
            with lock:
                _, order = next(orders, (None, None))
            if order is None:
                return
            prompt, is_seeded = order
            body = {"prompt": f"item {prompt}", "width": 64, "height": 64, "steps": 1,
                    "cache": mode}
            if is_seeded:
                body["seed"] = prompt
            answer = session.post(url, json=body, timeout=60)
            done = answer.status_code == 200 and answer.json()["state"] == "succeeded"
            (statuses if done else problems).append(answer.status_code)
    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and len(statuses) == len(mix), f"{mode}: {problems[:5]}"


def measure_mode(folder, memory, mode, mix):
    place = Path(folder) / mode
    place.mkdir()
    broker = nodes.DevBroker(place, "bench.", BIN).start()
    stack = Stack(place / "stack", broker.brokers, prefix="bench.", embedded=True,
                  worker_binary=ZERO_WORKER,
                  settings={"LOG_LEVEL": "info", "RATE_PER_MINUTE": "0",
                            "STORE_FOLDER": f"{memory}/{mode}"},
                  service_settings={"router": {"LANE_CREDIT": 2}})
    try:
        stack.start()
        run_clients(stack, mix, mode)
        hits = stack.gateway.metric("crafterse_gateway_cache_lookups_total", result="hit_process")
        drawn = stack.worker1.metric("crafterse_worker_pictures_total")
        stack.stop()
    finally:
        stack.kill_all()
        broker.stop()
    hit_rate, drawn_rate = 100 * hits / len(mix), 100 * drawn / len(mix)
    target = TARGETS.get(mode)
    name = mode.replace("-", "_")
    rows = []
    if mode == "exact":  # it has nothing for an order without a seed
        possible = sum(is_seeded for _, is_seeded in mix)
        rows = [{"name": "cache.exact.hit_rate_of_seeded", "value": round(100 * hits / possible, 2),
                 "unit": "%", "reference": None, "target": None, "holds": None}]
    rows += [{"name": f"cache.{name}.hit_rate", "value": round(hit_rate, 2), "unit": "%",
              "reference": None, "target": target,
              "holds": None if target is None else hit_rate >= target},
             {"name": f"cache.{name}.drawn", "value": round(drawn_rate, 2), "unit": "% of orders",
              "reference": None, "target": None, "holds": None}]
    return rows


def measure():
    mix = make_mix()
    rows = [{"name": "cache.mix.repeated_prompts", "unit": "%", "reference": None, "target": None,
             "value": round(100 - 100 * len({prompt for prompt, _ in mix}) / len(mix), 2),
             "holds": None}]
    with tempfile.TemporaryDirectory(prefix="crafterse-bench-") as folder, \
            tempfile.TemporaryDirectory(prefix="crafterse-bench-", dir="/dev/shm") as memory:
        for mode in MODES:
            rows += measure_mode(folder, memory, mode, mix)
    return rows
