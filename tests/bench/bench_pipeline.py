"""What the pipeline itself costs: the time from ordering a picture until the client has the answer
that it is there, with an engine that takes no time, at steady rates, on devbroker and on Apache
Kafka; and the memory of idle services.

Orders come on a fixed schedule whether or not earlier ones are answered, and each is timed from the
moment it was due: a pipeline that stalls cannot hide it. The reference is the floor that the broker
sets: the median of one record's way through it, times the five hops of a job (requests, queue,
jobs, results, status), measured with Debian's Python client in the same run.

Pictures go to a folder in memory: what a disk or a bucket takes to keep a picture is its own time,
told by crafterse_uploader_put_seconds, not the pipeline's.
"""

import http.client
import json
import queue
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka import Consumer, Producer, TopicPartition

from support import nodes
from support.processes import BUILD
from support.stack import BIN, Stack

ZERO_WORKER = BUILD / "test/bench/zero_worker"
# jobs a second -> seconds: at least 100 jobs, or the 99th percentile would be the single slowest.
RATES = {1: 120, 10: 20, 50: 20}
WARM_UP_JOBS = 20
HOPS = 5
LANE_CREDIT = 2  # what the router's help says for jobs of less than a second
P50_TARGET_MS = 25
P99_TARGET_MS = 100
MEMORY_TARGET_MB = 30
CLIENTS_MAX = 32


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(name, value, unit, target=None, reference=None):
    return {"name": f"pipeline.{name}", "value": round(value, 3), "unit": unit,
            "reference": None if reference is None else round(reference, 3), "target": target,
            "holds": None if target is None else value <= target}


# ---- Orders ---------------------------------------------------------------------------------

class Client(threading.Thread):
    """Takes due times from a queue; orders and waits for the picture over one connection."""

    def __init__(self, url, key, due, took, problems):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}",
                        "Prefer": "wait=20"}
        self.due, self.took, self.problems = due, took, problems

    def run(self):
        self.connection.connect()
        while True:
            item = self.due.get()
            if item is None:
                return
            seed, moment = item
            body = json.dumps({"prompt": "a sword", "seed": seed, "width": 64, "height": 64,
                               "steps": 1, "cache": "bypass"})
            self.connection.request("POST", "/v1/generations", body, self.headers)
            answer = self.connection.getresponse()
            job = json.loads(answer.read())
            if job.get("state") == "succeeded":
                self.took.append((time.monotonic() - moment) * 1000)
            else:
                self.problems.append(f"{answer.status} {job}")


def order(stack, rate, count, first_seed):
    """Milliseconds that each of `count` orders took, at `rate` a second."""
    due, took, problems = queue.Queue(), [], []
    url = f"http://127.0.0.1:{stack.gateway.port('http')}"
    # No more than a rate needs: the gateway closes a connection that rests for its idle timeout.
    clients = [Client(url, stack.key, due, took, problems)
               for _ in range(min(CLIENTS_MAX, 4 * rate))]
    for client in clients:
        client.start()
    time.sleep(0.3)
    began = time.monotonic()
    for i in range(count):
        moment = began + i / rate
        time.sleep(max(0, moment - time.monotonic()))
        due.put((first_seed + i, moment))
    for _ in clients:
        due.put(None)
    for client in clients:
        client.join(60)
    assert not problems and len(took) == count, f"{len(took)} of {count} succeeded: {problems[:3]}"
    return took


# ---- The broker's own time ------------------------------------------------------------------

def hop_ms(stack, samples=60):
    """The median time of one record from a producer to a waiting consumer."""
    topic = stack.topics.name("control")
    consumer = Consumer({"bootstrap.servers": stack.brokers, "group.id": "bench",
                         "fetch.wait.max.ms": 2 if stack.embedded else 100})
    partition = TopicPartition(topic, 0)
    consumer.assign([TopicPartition(topic, 0, consumer.get_watermark_offsets(partition)[1])])
    consumer.poll(0.5)
    producer = Producer({"bootstrap.servers": stack.brokers, "acks": "all", "linger.ms": 0})
    took = []
    for _ in range(samples):
        began = time.monotonic()
        producer.produce(topic, b"", partition=0)
        producer.poll(0)
        while consumer.poll(1) is None:
            pass
        took.append((time.monotonic() - began) * 1000)
        time.sleep(0.02)
    producer.flush(10)
    consumer.close()
    return statistics.median(took[10:])


# ---- All of it ------------------------------------------------------------------------------

def measure_stack(name, stack):
    rows = []
    stack.start()
    time.sleep(3)
    for service in ("gateway", "router", "uploader"):
        memory = stack.services[service].memory_mib() * 1.048576
        rows.append(row(f"{name}.idle_memory.{service}", memory, "MB", MEMORY_TARGET_MB))
    floor = HOPS * hop_ms(stack)
    order(stack, 10, WARM_UP_JOBS, 1)
    seed = 1000
    for rate, seconds in RATES.items():
        took = order(stack, rate, rate * seconds, seed)
        seed += len(took)
        rows.append(row(f"{name}.{rate}_per_second.p50", percentile(took, 0.50), "ms",
                        P50_TARGET_MS, floor))
        rows.append(row(f"{name}.{rate}_per_second.p99", percentile(took, 0.99), "ms",
                        P99_TARGET_MS))
    stack.stop()
    return rows


def measure():
    rows = []
    with tempfile.TemporaryDirectory(prefix="crafterse-bench-") as folder, \
            tempfile.TemporaryDirectory(prefix="crafterse-bench-", dir="/dev/shm") as memory:
        nodes.check_kafka_installed()
        for name in ("devbroker", "apache"):
            place = Path(folder) / name
            place.mkdir()
            prefix = "bench."
            broker = (nodes.Kafka(place) if name == "apache" else
                      nodes.DevBroker(place, prefix, BIN)).start()
            stack = Stack(place / "stack", broker.brokers, prefix=prefix,
                          embedded=name == "devbroker", worker_binary=ZERO_WORKER,
                          settings={"LOG_LEVEL": "info", "RATE_PER_MINUTE": "0",
                                    "STORE_FOLDER": memory},
                          service_settings={"router": {"LANE_CREDIT": LANE_CREDIT}})
            try:
                rows += measure_stack(name, stack)
            finally:
                stack.kill_all()
                broker.stop()
    return rows
