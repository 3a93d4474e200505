"""Brokers that die, and networks between them and the services that do worse."""

import threading
import time

from chaos.ledger import ENDS
from chaos.proxy import wait_cut
from chaos.scenarios.scenario import Desk, scenario
from support.messages import Job
from support.processes import wait_until

ONE_EACH = {"router": 1, "worker": 1, "uploader": 1, "gateway": 1}


class Load:
    """A client that orders one small job after the other until it is left."""

    def __init__(self, desk, pause=0.2, **fields):
        self.desk = desk
        self.pause = pause
        self.fields = fields
        self.orders = []
        self.problems = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.stopping.wait(self.pause):
            try:
                self.orders.append((time.monotonic(), self.desk.order(
                    turn=len(self.orders), **self.fields)))
            except AssertionError as problem:
                self.problems.append(str(problem))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(self.fields.get("patience", 60) + 30)


def is_progressing(desk, timeout):
    """A job that is ordered now is drawn within the time; returns the seconds that it took."""
    began = time.monotonic()
    order = desk.order(patience=timeout)
    wait_until(lambda: (desk.look(order) or {}).get("state") == "succeeded", timeout, interval=0.1)
    return time.monotonic() - began


def running_since(fleet):
    return {name: service.pid for name, service in fleet.services.items()}


@scenario(6, "kill -9 of one broker for 30 s, then of two",
          "with one away jobs go on; with two the gateway says 503 and never a false 202; "
          "everything resumes without a restart of a service",
          scaled="the brokers are away for 6 s; SOAK=1: 30 s")
def broker_killed(run):
    away = 30 if run.soak else 6
    fleet = run.fleet()
    desk = Desk(run, fleet)
    is_progressing(desk, 30)
    pids = running_since(fleet)
    nodes = run.world.cluster.nodes
    with Load(desk, patience=240) as load:  # Java may take minutes to start on a busy machine
        nodes[0].kill()
        time.sleep(1)
        run.note(f"one broker away: a job took {is_progressing(desk, 60):.1f} s")
        time.sleep(away)
        nodes[0].begin().wait()
        time.sleep(3)
        refused_before = desk.ledger.refused
        nodes[1].kill()
        nodes[2].kill()
        time.sleep(away + 10)  # the gateway's own patience is 10 s
        refused = desk.ledger.refused - refused_before
        nodes[1].begin()
        nodes[2].begin()
        nodes[1].wait()
        nodes[2].wait()
        run.note(f"two away: {refused} orders refused; back again: a job took "
                 f"{is_progressing(desk, 90):.1f} s")
    assert refused > 0, "nothing was refused with two brokers of three away"
    assert not load.problems, load.problems[:3]
    desk.settle()
    assert not fleet.supervisor.restarts, fleet.supervisor.gave_up
    assert running_since(fleet) == pids


@scenario(7, "the brokers cannot be reached when each service starts",
          "each waits, is not ready and does not end; all are ready when the brokers come")
def unreachable_at_start(run):
    fleet = run.fleet(start=False, counts=ONE_EACH)
    for proxy in run.world.cluster.proxies:
        proxy.refusing = True
    for service in fleet.services.values():
        service.start()
    for name, service in fleet.services.items():
        service.port("metrics", timeout=20)
    time.sleep(8)
    for name, service in fleet.services.items():
        assert service.is_running(), f"{name} ended: {service.child.returncode}"
        assert service.get("/healthz").status_code == 200, f"{name} is not live"
        assert not service.is_ready(), f"{name} says that it is ready"
    for proxy in run.world.cluster.proxies:
        proxy.heal()
    began = time.monotonic()
    fleet.wait_ready()
    fleet.supervisor.start()
    run.note(f"all ready {time.monotonic() - began:.1f} s after the brokers came")
    desk = Desk(run, fleet)
    desk.order()
    desk.settle()
    assert not fleet.supervisor.restarts


@scenario(8, "the answer to a produce request is cut off after the broker has it",
          "no double record on `requests` (idempotence), and every job ends once",
          )
def answer_cut(run, rounds=4):
    fleet = run.fleet(counts=ONE_EACH)
    desk = Desk(run, fleet)
    desk.order()
    cuts = 0
    for _ in range(rounds):
        for proxy in run.world.cluster.proxies:
            proxy.cuts, proxy.cut_produce = 0, 2
        # Through gateway, router, worker and uploader: whoever produces next is cut.
        for _ in range(3):
            desk.order(idempotency_key=f"cut-{run.numbers}")
        wait_cut(run.world.cluster.proxies, 1)
        time.sleep(0.5)
        cuts += sum(proxy.cuts for proxy in run.world.cluster.proxies)
        for proxy in run.world.cluster.proxies:
            proxy.heal()
    desk.settle()
    ids = [job.envelope.job_id for job in fleet.topics.read("requests", Job)]
    assert len(ids) == len(set(ids)), "a job stands on `requests` twice"
    assert len(set(ids)) == len(desk.ledger.orders)
    run.note(f"{cuts} answers cut off, {len(ids)} jobs, each once on `requests`")
    assert cuts >= rounds


@scenario(28, "Kafka is away until the client gives up a job's first picture, but not its second",
          "the second does not pass the first: the job succeeds with both")
def pictures_in_order(run):
    fleet = run.fleet(counts=ONE_EACH, step_time="1s", service_settings={"worker": {
        "KAFKA_EXTRA": "message.timeout.ms=1500;reconnect.backoff.max.ms=100;"
                       "session.timeout.ms=20000"}})
    desk = Desk(run, fleet)
    order = desk.order(n=2)
    desk.wait_for(order, "running")
    time.sleep(0.3)
    for proxy in run.world.cluster.proxies:
        proxy.refusing = True
        proxy.reset()
    time.sleep(2.4)  # drawn after 1 s and 2 s; the first is given up after 2.5 s
    for proxy in run.world.cluster.proxies:
        proxy.heal()
    wait_until(lambda: (desk.look(order) or {}).get("state") in ENDS, 30, interval=0.1)
    given_up = fleet.worker1.log().count("output not delivered")
    desk.settle()
    run.note(f"{given_up} output(s) were given up and sent again; the job has "
             f"{', '.join(order.ends)}")
    assert set(order.ends) == {"succeeded"}, order.ends
    assert given_up > 0, "nothing was given up"


def network_faults(full):
    """(what it is, how it is set)"""
    def set_latency(proxy):
        proxy.latency = 1.0

    def set_rate(proxy):
        proxy.rate = 64 * 1024

    def set_slices(proxy):
        proxy.slices = 1 if full else 16

    def set_silent(proxy):
        proxy.silent = True
    return (("1 s latency", set_latency), ("64 kB/s", set_rate),
            ("pieces of 1 byte" if full else "pieces of 16 bytes", set_slices),
            ("reset_peer", lambda proxy: proxy.reset()), ("half open", set_silent))


@scenario(9, "1 s latency, 64 kB/s, 1-byte pieces, reset_peer, half open 60 s, towards all brokers",
          "progress resumes within 60 s of the end of each fault; memory flat (below + 16 MiB)",
          scaled="each fault for 6 s, pieces of 16 bytes; SOAK=1: 60 s, 1 byte")
def bad_network(run):
    lasts = 60 if run.soak else 6
    fleet = run.fleet()
    desk = Desk(run, fleet)
    is_progressing(desk, 30)
    before = {name: service.memory_mib() for name, service in fleet.services.items()}
    for name, hurt in network_faults(run.soak):
        with Load(desk, pause=0.5) as load:
            for proxy in run.world.cluster.proxies:
                hurt(proxy)
            time.sleep(lasts)
            for proxy in run.world.cluster.proxies:
                proxy.heal()
            took = is_progressing(desk, 60)
        run.note(f"{name}: {len(load.orders)} orders meanwhile; a job took {took:.1f} s after it")
        assert not load.problems, load.problems[:3]
    desk.settle(timeout=120)
    grown = {name: service.memory_mib() - before[name] for name, service in
             fleet.services.items() if name in before}
    run.note("memory grew by " + ", ".join(f"{name} {mib:.1f} MiB" for name, mib in
                                           sorted(grown.items())))
    assert max(grown.values()) < 16, grown
