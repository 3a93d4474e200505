"""What the machine does to a process: stalls, full disks, limits, a clock that jumps, time."""

import os
import random
import socket
import subprocess
import time
from pathlib import Path

from chaos.clients import Client
from chaos.scenarios.crashes import states, wait_ended
from chaos.scenarios.kafka import ONE_EACH, Load
from chaos.scenarios.scenario import Desk, scenario
from chaos.storm import Storm
from support.messages import State
from support.processes import BUILD, wait_until



@scenario(18, "the thread that polls Kafka stands still for ever (max.poll.interval)",
          "its lane goes to another worker and the job is run once more; the process notices: "
          "/healthz fails, and after twice HANG_LIMIT it ends by itself with a status")
def stalled(run):
    fleet = run.fleet(faulty=True, counts={"router": 1, "worker": 2, "uploader": 1, "gateway": 1},
                      step_time="200ms", service_settings={"worker": {
                          "HANG_LIMIT": "4s",
                          "KAFKA_EXTRA": "max.poll.interval.ms=6000;session.timeout.ms=3000"}})
    desk = Desk(run, fleet)
    for name in ("worker1", "worker2"):  # whichever gets the job
        fleet.arm(name, "worker.step:3:stall").wait_ready()
    order = desk.order(steps=20)
    began = time.monotonic()
    stuck = wait_until(lambda: next((name for name in ("worker1", "worker2") if
                                     fleet.was_passed(name, "worker.step:3:stall")), None), 30)
    free = "worker2" if stuck == "worker1" else "worker1"
    fleet.leave(free)
    fleet.supervisor.hold(free)  # without the fault point
    fleet.supervisor.release(stuck)  # back again it would ask for its lanes, and the job's is one
    wait_until(lambda: fleet.services[stuck].get("/healthz").status_code != 200, 20)
    run.note(f"/healthz failed {time.monotonic() - began:.1f} s after its loop stood still")
    wait_until(lambda: not fleet.services[stuck].is_running(), 20)
    status = fleet.services[stuck].child.returncode
    run.note(f"it ended by itself with status {status} {time.monotonic() - began:.1f} s after it")
    assert status == 1
    wait_ended(desk, [order], 60)
    run.note(f"the job ended {time.monotonic() - began:.1f} s after it")
    assert set(order.ends) == {"succeeded"}
    assert states(fleet, order).count(State.STATE_RUNNING) == 2
    fleet.supervisor.hold(stuck)
    desk.order()
    desk.settle()


# ---- 19 -------------------------------------------------------------------------------------

def full_disk(run):
    """The uploader's folder is a file system of 256 KiB."""
    if os.geteuid() != 0:
        run.note("disk full: not run, mounting a small file system needs root")
        return
    place = run.world.folder / "small-disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    try:
        ballast = place / "ballast"
        fleet = run.fleet(counts=ONE_EACH, service_settings={
            "uploader": {"STORE": "folder", "STORE_FOLDER": place}})
        fleet.s3, fleet.objects_folder = None, place
        desk = Desk(run, fleet)
        ballast.write_bytes(b"\0" * (252 * 1024))
        orders = [desk.order() for _ in range(30)]
        uploader = fleet.services["uploader1"]
        wait_until(lambda: not uploader.is_ready(), 30)
        why = uploader.get("/readyz").text.strip()
        time.sleep(2)
        assert not all(order.has_ended or desk.look(order)["state"] == "succeeded"
                       for order in orders), "the disk was never full"
        ballast.unlink()
        wait_ended(desk, orders, 60)
        desk.settle()
        run.note(f"disk full: the uploader said \"{why[:140]}\"; with room again all 30 were "
                 "stored")
        run.stop(fleet)
    finally:
        subprocess.run(["umount", place], check=False)


def few_files(run):
    """A gateway that may open 64 files, and 200 clients."""
    fleet = run.fleet(counts=ONE_EACH)
    desk = Desk(run, fleet)
    gateway = fleet.services["gateway1"]
    is_open = len(os.listdir(f"/proc/{gateway.pid}/fd"))
    subprocess.run(["prlimit", "--pid", str(gateway.pid), f"--nofile={is_open + 20}"], check=True)
    clients = []
    for _ in range(200):
        client = socket.socket()
        client.settimeout(1)
        try:
            client.connect(("127.0.0.1", fleet.http_ports["gateway1"]))
        except OSError:
            pass
        clients.append(client)
    time.sleep(2)
    assert gateway.is_running(), "the gateway ended for want of file descriptors"
    for client in clients:
        client.close()
    orders = [desk.order() for _ in range(3)]
    wait_ended(desk, orders, 60)
    desk.settle()
    run.note("20 free file descriptors and 200 clients: it lived, and took orders again after them")
    run.stop(fleet)


def jumping_clock(run):
    """One hour forward, then two back, under gateway, router and worker. (The store would refuse an
    uploader whose clock is wrong: signatures.)"""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    assert library is not None, "no libfaketime: apt install libfaketime (make chaos does)"
    offset = Path(run.world.folder) / "clock"
    offset.write_text("+0\n")
    faked = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(offset),
             "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    fleet = run.fleet(start=False, counts={**ONE_EACH, "worker": 2})
    for name, service in fleet.services.items():
        if not name.startswith("uploader"):
            service.environment.update(faked)
    fleet.start()
    desk = Desk(run, fleet)
    with Load(desk, steps=4) as load:
        for shift in ("+3600", "-3600", "+0"):
            time.sleep(3)
            offset.write_text(f"{shift}\n")
        time.sleep(5)
    assert not load.problems, load.problems[:3]
    desk.settle()
    ends = {state for _, order in load.orders for state in order.ends}
    assert ends == {"succeeded"}, ends
    run.note(f"clock one hour forward, two back, one forward: {len(load.orders)} jobs, all "
             "succeeded")
    run.stop(fleet)


@scenario(19, "disk full, file descriptor limit, clock jumps of an hour (memory cap: see 12)",
          "a clean error, nothing corrupt, everything goes on when it is over")
def limits(run):
    full_disk(run)
    few_files(run)
    jumping_clock(run)


# ---- 22 -------------------------------------------------------------------------------------

def sizes(fleet):
    """(resident MiB, open files) of each service."""
    return {name: (service.memory_mib(), len(os.listdir(f"/proc/{service.pid}/fd")))
            for name, service in fleet.services.items()}


class Soak(Storm):
    """A storm whose only fault is that somebody looks."""

    def __init__(self, fleet, seed, seconds):
        super().__init__(fleet, seed, 4 * seconds, say=lambda text: None)
        self.clients = {key: Client(fleet, self.ledger, key) for key in fleet.keys}
        self.half, self.end = None, None
        self.faults = sorted([(at, "ask", {}) for at in range(60, seconds, 60)] +
                             [(seconds * 0.5, "measure", {"name": "half"}),
                              (seconds * 0.99, "measure", {"name": "end"})])

    def _do_measure(self, details):
        setattr(self, details["name"], sizes(self.fleet))

    def _do_ask(self, _details):
        """How those ended that the clients' own looks saw unended, before they are forgotten."""
        for order in self.ledger.unended():
            self.clients[order.key].look(order)


@scenario(22, "soak: mixed load without faults, then the growth of memory and open files",
          "files constant, memory flat: less than 1 MiB in the second half (SOAK: 4 MiB an hour)",
          scaled="60 s; SOAK=1: 1 h, with the sanitizers of CRAFTERSE_BUILD and CRAFTERSE_BIN")
def soak(run):
    seconds = 3600 if run.soak else 60
    # What remembers jobs must be full in the first half: a 20th of an hour's fills the gateway's
    # table. A sanitizer's quarantine of freed memory must be full by then too.
    room = {"gateway": {"JOBS_MAX": "1000", "JOBS_IN_FLIGHT_MAX": "1000",
                        "CACHE_ENTRIES_MAX": "1000"}} if run.soak else {}
    os.environ.setdefault("ASAN_OPTIONS", "quarantine_size_mb=8:thread_local_quarantine_size_kb=64")
    fleet = run.fleet(counts=ONE_EACH, step_time="10ms", service_settings={
        "router": {"LANE_CREDIT": "2"}, **room})
    mib_max = 4 if run.soak or BUILD.name == "asan" else 1
    storm = Soak(fleet, run.seed, seconds)
    verdict = storm.run()
    run.total.add(verdict)
    assert verdict.is_clean, "\n".join(verdict.problems()[:20])
    for name, (mib, files) in sorted(storm.end.items()):
        grew, files_before = mib - storm.half[name][0], storm.half[name][1]
        run.note(f"{name}: {mib:.1f} MiB, {grew:+.2f} in the second half; files "
                 f"{files_before} then {files}")
        assert grew < mib_max, f"{name} grew by {grew:.2f} MiB"
        assert files <= files_before + 12, f"{name} opened files: {files}"


# ---- 24 -------------------------------------------------------------------------------------

def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(data) + 1)
        act = rng.randrange(3)
        if act == 0:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif act == 1:
            del data[at:at + rng.randrange(1, 20)]
        elif data:
            data[min(at, len(data) - 1)] = rng.randrange(256)
    return bytes(data)


def fuzz_http(rng, port, key, count):
    request = (b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " +
               key.encode() + b"\r\nContent-Type: application/json\r\nContent-Length: 40\r\n"
               b"Prefer: wait=1\r\n"
               b"Idempotency-Key: k\r\n\r\n{\"prompt\": \"x\", \"width\": 64, \"steps\": 1, ..")
    for _ in range(count):
        with socket.socket() as client:
            client.settimeout(0.2)
            try:
                client.connect(("127.0.0.1", port))
                client.sendall(mutate(rng, request))
                client.recv(4096)
            except OSError:
                pass


@scenario(24, "fuzzed input to every decoder of a running fleet: HTTP, records, store answers",
          "no crash, memory below + 32 MiB, jobs go on (make fuzz runs each parser by itself)",
          scaled="about 300 inputs each; SOAK=1: 10,000")
def fuzz(run):
    count = 10000 if run.soak else 300
    rng = random.Random(run.seed)
    fleet = run.fleet(counts=ONE_EACH)
    desk = Desk(run, fleet)
    wait_ended(desk, [desk.order() for _ in range(4)], 60)
    before = sizes(fleet)
    fuzz_http(rng, fleet.http_ports["gateway1"], fleet.keys["gamma"], count)
    for service in fleet.services.values():
        fuzz_http(rng, service.port("metrics"), "none", count // 10)
    written = 0
    for topic in ("requests", "queue.default.interactive", "jobs.default", "results", "status",
                  "control", "workers", "progress", "retry.default"):
        found = [value for _, value in fleet.topics.records(topic) if value] or [b"\x0a\x04seed"]
        payloads = [mutate(rng, rng.choice(found)) for _ in range(count // 10)]
        fleet.topics.write_all(topic, payloads)
        written += len(payloads)
    run.world.s3.fault = "garbage"
    during = desk.order()
    time.sleep(3)
    run.world.s3.fault = None
    wait_ended(desk, [during, desk.order()], 90)
    for name, (mib, _) in sizes(fleet).items():
        assert mib - before[name][0] < 32, f"{name} grew by {mib - before[name][0]:.0f} MiB"
    assert not fleet.supervisor.restarts, fleet.supervisor.crashes + fleet.supervisor.gave_up
    run.note(f"{count} requests, {written} records and the store's garbage: no service ended (what "
             "became of the mutated orders is not judged)")
