"""What the gateway carries: cache hits a second on one core beside nginx serving a file of the same
size in the same run, many event streams at once, and connections that trickle (slow loris).

wrk (Debian's) orders a picture that is there, over and over; every answer must be a 200. Gateway
and nginx are each held on one processor and wrk on another. Their rate is told per second that the
processor worked for them (all threads, the kernel's share included), so that it does not fall with
what else the machine does; on a machine that does nothing else the plain rate, told beside it, is
the same.
"""

import json
import os
import selectors
import shutil
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from load import Wrk, cpu_seconds, hold_on_processor
from support import nodes
from support.processes import BUILD, Process, wait_until
from support.stack import BIN, Stack

ZERO_WORKER = BUILD / "test/bench/zero_worker"
HITS_TARGET = 25000
NGINX_SHARE_TARGET = 33
P99_TARGET_MS = 5
ROUNDS, ROUND_SECONDS = 3, 4
STREAMS, STREAM_JOBS = 5000, 100
LORISES = 10000
LORIS_SECONDS, LORIS_BYTE_EVERY_S = 15, 4
BODY = {"prompt": "a flaming obsidian sword", "seed": 7, "width": 64, "height": 64, "steps": 20}

# As root it would serve as www-data, which may not read our folder.
NGINX_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    types {{ application/json json; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


def row(name, value, unit, target=None, reference=None, reference_is="", at_least=True):
    holds = None if target is None else value >= target if at_least else value <= target
    return {"name": f"gateway.{name}", "value": round(value, 3), "unit": unit,
            "reference": None if reference is None else round(reference, 3),
            "reference_is": reference_is, "target": target,
            "at_least": None if target is None else at_least, "holds": holds}


# ---- The peer ---------------------------------------------------------------------------------

class Nginx:
    """Serves one file of `size` bytes."""

    def __init__(self, folder, size):
        folder = Path(folder) / "nginx"
        folder.mkdir()
        self.port = nodes.free_port()
        (folder / "file.json").write_text("x" * size)
        (folder / "nginx.conf").write_text(NGINX_CONFIGURATION.format(
            folder=folder, port=self.port, user="user root;" if os.getuid() == 0 else ""))
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        self.process = Process("nginx", [binary, "-e", folder / "nginx.error", "-p", folder,
                                         "-c", folder / "nginx.conf"], folder)

    def start(self):
        self.process.start()

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        wait_until(listens, 10, lambda: self.process.fail("does not listen"))
        return self


def run_measured(wrk, url, pid):
    """Requests a second of the processor, plain requests a second, 99th percentile."""
    before = cpu_seconds(pid)
    result = wrk.run(url, ROUND_SECONDS)
    used = cpu_seconds(pid) - before
    return result["requests"] / used, result["requests"] / result["seconds"], result["p99_ms"]


# ---- Cache hits -----------------------------------------------------------------------------

def measure_hits(stack, folder):
    answer = stack.client.post(BODY)
    assert answer.status_code == 200, f"no cache hit: {answer.status_code} {answer.text}"
    size = len(answer.content)
    nginx = Nginx(folder, size).start()
    try:
        hold_on_processor(stack.gateway.pid, 0)
        hold_on_processor(nginx.process.pid, 0)
        order = Wrk(folder, "hit", "POST", json.dumps(BODY), stack.key)
        get = Wrk(folder, "file", "GET", "", "none")
        url = f"http://127.0.0.1:{stack.gateway.port('http')}/v1/generations"
        order.run(url, 1)
        rounds = [(run_measured(order, url, stack.gateway.pid),
                   run_measured(get, f"http://127.0.0.1:{nginx.port}/file.json",
                                nginx.process.pid))
                  for _ in range(ROUNDS)]
    finally:
        nginx.process.terminate()
    hits, plain, p99 = (statistics.median(ours[i] for ours, _ in rounds) for i in range(3))
    files, files_plain, files_p99 = (statistics.median(theirs[i] for _, theirs in rounds)
                                     for i in range(3))
    share = statistics.median(100 * ours[0] / theirs[0] for ours, theirs in rounds)
    return [row("cache_hits_per_core", hits, "1/s", HITS_TARGET, files,
                "nginx, a file of the same size"),
            row("cache_hits_plain", plain, "1/s", None, files_plain, "nginx"),
            row("cache_hits_of_nginx", share, "%", NGINX_SHARE_TARGET),
            row("cache_hits_p99", p99, "ms", P99_TARGET_MS, files_p99, "nginx", False)]


# ---- Event streams --------------------------------------------------------------------------

class Streams:
    """Many GETs of event streams in one thread; done counts those that saw their job's end."""

    def __init__(self, port, key, job_ids):
        self.selector = selectors.DefaultSelector()
        self.open = 0
        self.done = 0
        for job_id in job_ids:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall((f"GET /v1/generations/{job_id}/events HTTP/1.1\r\nHost: bench\r\n"
                            f"Authorization: Bearer {key}\r\n\r\n").encode())
            client.setblocking(False)
            self.selector.register(client, selectors.EVENT_READ, bytearray())
            self.open += 1

    def follow(self, until):
        while self.open > 0 and time.monotonic() < until:
            for key, _ in self.selector.select(1):
                data = key.fileobj.recv(65536)
                key.data.extend(data)
                ended = b"event: done" in key.data[-8192:]
                del key.data[:-8192]
                if ended or not data:
                    self.done += ended
                    self.open -= 1
                    self.selector.unregister(key.fileobj)
                    key.fileobj.close()


def measure_streams(stack):
    """STREAMS clients follow STREAM_JOBS jobs that wait their turn, each from before its start to
    its end."""
    jobs = [stack.client.submit(seed=1000 + i, steps=2, width=64, height=64)["id"]
            for i in range(STREAM_JOBS)]
    streams = Streams(stack.gateway.port("http"), stack.key,
                      [jobs[-1 - i % (STREAM_JOBS // 2)] for i in range(STREAMS)])
    time.sleep(2)  # the gateway tells its levels once a second
    at_once = int(stack.gateway.metric("crafterse_gateway_event_streams"))
    memory = stack.gateway.memory_mib() * 1.048576
    streams.follow(time.monotonic() + 120)
    return [row("sse_clients_at_once", at_once, "clients", STREAMS),
            row("sse_clients_that_saw_the_end", streams.done, "clients", STREAMS),
            row("sse_memory", memory, "MB")]


# ---- Slow loris -----------------------------------------------------------------------------

class Lorises(threading.Thread):
    """Connections that never finish their request: a header byte now and then; what the gateway
    closes comes back at once."""

    def __init__(self, port, count):
        super().__init__(daemon=True)
        self.port, self.is_ending = port, False
        self.clients = [self.connect() for _ in range(count)]

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.sendall(b"POST /v1/generations HTTP/1.1\r\nHost: bench\r\nX-Slow: ")
        return client

    def run(self):
        while not self.is_ending:
            began = time.monotonic()
            for i, client in enumerate(self.clients):
                try:
                    client.sendall(b"z")
                except OSError:
                    client.close()
                    self.clients[i] = self.connect()
                if i % 100 == 0:
                    time.sleep(LORIS_BYTE_EVERY_S * 50 / len(self.clients))
            time.sleep(max(0, began + LORIS_BYTE_EVERY_S - time.monotonic()))

    def end(self):
        self.is_ending = True
        self.join()
        for client in self.clients:
            client.close()


def measure_lorises(stack, folder):
    order = Wrk(folder, "hit", "POST", json.dumps(BODY), stack.key)
    url = f"http://127.0.0.1:{stack.gateway.port('http')}/v1/generations"
    alone = order.run(url, ROUND_SECONDS, connections=4)
    lorises = Lorises(stack.gateway.port("http"), LORISES)
    lorises.start()
    try:
        beside = order.run(url, LORIS_SECONDS, connections=4)
        held = int(stack.gateway.metric("crafterse_gateway_connections"))
    finally:
        lorises.end()
    return [row("slow_loris_connections", held, "clients", LORISES),
            row("slow_loris_others_p99", beside["p99_ms"], "ms", None, alone["p99_ms"], "without"),
            row("slow_loris_others", beside["requests"] / beside["seconds"], "1/s", None,
                alone["requests"] / alone["seconds"], "without")]


# ---- All of it ------------------------------------------------------------------------------

def measure():
    with tempfile.TemporaryDirectory(prefix="crafterse-bench-") as folder:
        nodes.check_kafka_installed()
        broker = nodes.Kafka(folder).start()
        stack = Stack(Path(folder) / "stack", broker.brokers, worker_binary=ZERO_WORKER,
                      settings={"LOG_LEVEL": "info", "RATE_PER_MINUTE": "0"},
                      service_settings={"worker": {"STEP_TIME": "100ms"}})
        try:
            stack.start()
            stack.client.draw(**{**BODY, "steps": 1})
            stack.client.draw(**BODY)
            rows = measure_hits(stack, folder)
            rows += measure_streams(stack)
            rows += measure_lorises(stack, folder)
            stack.stop()
        finally:
            stack.kill_all()
            broker.stop()
    return rows
