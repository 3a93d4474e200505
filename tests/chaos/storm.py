"""The seeded scheduler: what is ordered, and what is broken meanwhile. Everything is drawn from the
seed before it begins, so the same seed gives the same schedule; how far a job has come when a fault
hits it is up to the machine."""

import random
import signal
import time

from chaos.checker import check
from chaos.clients import Crowd, wait_ends
from chaos.fleet import KEYS, SESSION_TIMEOUT_S
from chaos.ledger import Ledger

JOBS_PER_SECOND = 4
STORM_SECONDS_MIN = 20
REST_SECONDS_MAX = 180
WORDS = ("sword", "shield", "potion", "dragon", "castle", "helmet", "torch", "map")


# ---- The plan -------------------------------------------------------------------------------

def plan_orders(rng, count, seconds, has_real):
    """A list of orders: when, what, by whom, and what is done to them later."""
    orders = []
    for i in range(count):
        steps = rng.choice((1, 1, 2, 4, 8, 16)) if rng.random() > 0.04 else 60
        body = {"prompt": f"a {rng.choice(WORDS)} number {i}", "width": 64, "height": 64,
                "steps": steps, "seed": rng.randrange(1 << 31), "model": "zero",
                "n": rng.choice((1, 1, 1, 1, 2, 3)),
                "priority": "batch" if rng.random() < 0.3 else "interactive",
                "cache": "bypass" if rng.random() < 0.1 else "exact"}
        if has_real and rng.random() < 0.06:
            body.update(model="tiny-sdxl", steps=2, n=1)
        if orders and rng.random() < 0.1:
            body = dict(rng.choice(orders)["body"], priority=body["priority"])
            body.pop("deadline", None)
        if rng.random() < 0.08:
            body["deadline"] = rng.choice((1, 2, 4))
        order = {"at": rng.uniform(0, seconds), "body": body, "key": rng.choice(KEYS),
                 "gateway": rng.randrange(2), "idempotent": rng.random() < 0.7,
                 "copies": 1 if rng.random() > 0.08 else rng.choice((2, 3)),
                 "cancel": rng.uniform(0, 2) if rng.random() < 0.12 else None,
                 "cancel_again": rng.random() < 0.3,
                 "watch": rng.random() < 0.2, "probe": rng.random() < 0.1, "number": i}
        orders.append(order)
    return orders


# (what is done, weight)
FAULTS = (("kill", 10), ("stop", 5), ("terminate", 3), ("add", 2), ("broker", 2), ("redis", 2),
          ("store", 4), ("network", 3))


def plan_faults(rng, seconds, kinds, brokers):
    """A list of (when, fault, details), in order."""
    faults = []
    at = rng.uniform(1, 3)
    broker_free_at = 0
    while at < seconds:
        fault = rng.choices([f for f, _ in FAULTS], [w for _, w in FAULTS])[0]
        # Two brokers of three must be left: the next one waits until the last is back for sure.
        if fault == "broker" and (brokers < 3 or at < broker_free_at):
            fault = "kill"
        details = {"kind": rng.choice(kinds), "which": rng.randrange(8),
                   "seconds": rng.uniform(0.5, 4)}
        if fault == "terminate" and details["kind"] == "realworker":
            fault = "kill"  # with its only worker's goodbye a model goes: 422 (docs/CHAOS.md)
        if fault == "stop":  # half of them longer than the session: the zombie
            details["seconds"] = rng.choice((rng.uniform(0.5, 2), SESSION_TIMEOUT_S + 2))
        elif fault == "broker":
            details["which"] = rng.randrange(brokers)
            details["seconds"] = rng.uniform(1, 6)
            broker_free_at = at + details["seconds"] + 20
        elif fault == "store":
            details["fault"] = rng.choice(("down", "error", "slow_down", "denied", "slow",
                                           "reset", "lost_answer"))
        elif fault == "network":
            details["fault"] = rng.choice(("reset", "latency", "cut_produce", "silent"))
        elif fault == "redis":
            details["fault"] = rng.choice(("kill", "flush", "latency"))
        faults.append((at, fault, details))
        at += rng.expovariate(1 / 1.5)
    return faults


# ---- The acts -------------------------------------------------------------------------------

class Storm:
    def __init__(self, fleet, seed, count, say=print, seconds=None):
        self.fleet = fleet
        self.world = fleet.world
        self.say = say
        rng = random.Random(seed)
        self.seconds = seconds or max(STORM_SECONDS_MIN, count / JOBS_PER_SECOND)
        self.orders = plan_orders(rng, count, self.seconds, fleet.has_real)
        kinds = ["gateway", "router", "uploader", "worker", "worker"]
        kinds += ["realworker"] if fleet.has_real else []
        self.faults = plan_faults(rng, self.seconds, kinds, self.world.cluster.size)
        self.ledger = Ledger()
        self.crowd = Crowd(fleet, self.ledger)
        self.later = []  # (when, what undoes a fault)
        self.added = 0
        self.seed = seed

    # ---- Clients ------------------------------------------------------------------------------

    def _order(self, plan, copy):
        def act(clients):
            client = clients[plan["key"]]
            turn = plan["gateway"] + copy
            key = f"seed-{self.seed}-order-{plan['number']}" if plan["idempotent"] else None
            order = client.submit(plan["body"], turn, key)
            if order is None or copy > 0:
                return
            now = time.monotonic()
            if plan["watch"]:
                self.crowd.watch(order, turn)
            if plan["cancel"] is not None:
                self.crowd.at(now + plan["cancel"],
                              lambda c: c[plan["key"]].cancel(order, turn + 1))
                if plan["cancel_again"]:
                    self.crowd.at(now + plan["cancel"] + 0.5,
                                  lambda c: c[plan["key"]].cancel(order, turn))
            if plan["probe"]:
                other = KEYS[(KEYS.index(plan["key"]) + 1) % len(KEYS)]
                self.crowd.at(now + 0.5, lambda c: c[other].probe(order, turn))
            for wait in (0.7, 2.5):
                self.crowd.at(now + wait, lambda c: c[plan["key"]].look(order, turn + 1))
        return act

    # ---- Faults -------------------------------------------------------------------------------

    def _victim(self, details):
        names = self.fleet.of_kind(details["kind"])
        return names[details["which"] % len(names)]

    def _undo(self, seconds, act):
        self.later.append((time.monotonic() + seconds, act))

    def _do_kill(self, details):
        self.fleet.kill(self._victim(details))

    def _do_stop(self, details):
        name = self._victim(details)
        self.fleet.signal(name, signal.SIGSTOP)
        self._undo(details["seconds"], lambda: self.fleet.signal(name, signal.SIGCONT))

    def _do_terminate(self, details):
        self.fleet.signal(self._victim(details), signal.SIGTERM)

    def _do_add(self, details):
        """One more of it, for a while."""
        self.added += 1
        name = f"{details['kind']}{10 + self.added}"
        if details["kind"] == "gateway":
            self.fleet.visitors.add(name)  # clients know two; it is asked for all jobs
            self.crowd.at(time.monotonic() + 4, lambda clients: self._ask(clients, name))
        self.fleet.add(name).start()
        self._undo(8, lambda: self.fleet.signal(name, signal.SIGTERM))

    def _ask(self, clients, name):
        """A gateway that has just come answers for every job."""
        for order in list(self.ledger.orders.values())[-20:]:
            clients[order.key].look(order, self.fleet.gateway_url(name))

    def _do_broker(self, details):
        broker = self.world.cluster.nodes[details["which"]]
        if all(node.process.is_running() for node in self.world.cluster.nodes):
            broker.kill()
            self._undo(details["seconds"], broker.begin)

    def _do_redis(self, details):
        redis = self.world.redis
        if details["fault"] == "latency":
            self.world.redis_proxy.latency = 5
            self._undo(details["seconds"], self.world.redis_proxy.heal)
        elif details["fault"] == "flush" and redis.process.is_running():
            redis.client.flushall()
        elif redis.process.is_running():
            redis.kill()
            self._undo(details["seconds"], redis.process.start)

    def _do_store(self, details):
        s3 = self.world.s3
        if details["fault"] == "slow":
            s3.delay = 2
        else:
            s3.fault = details["fault"]

        def undo():
            s3.fault, s3.delay = None, 0
        self._undo(details["seconds"], undo)

    def _do_network(self, details):
        proxy = self.world.cluster.proxies[details["which"] % self.world.cluster.size]
        if details["fault"] == "reset":
            proxy.reset()
        elif details["fault"] == "latency":
            proxy.latency = 0.3
        elif details["fault"] == "cut_produce":
            proxy.cut_produce = 3
        else:
            proxy.silent = True
        self._undo(details["seconds"], proxy.heal)

    # ---- The whole ----------------------------------------------------------------------------

    def _undo_due(self, now):
        for entry in [entry for entry in self.later if entry[0] <= now]:
            self.later.remove(entry)
            entry[1]()

    def rage(self):
        """Orders and faults at their times."""
        begin = time.monotonic()
        for plan in self.orders:
            for copy in range(plan["copies"]):
                self.crowd.at(begin + plan["at"] + 0.05 * copy, self._order(plan, copy))
        for at, fault, details in self.faults:
            while time.monotonic() < begin + at:
                self._undo_due(time.monotonic())
                time.sleep(0.02)
            self.say(f"    {time.monotonic() - begin:5.1f} s {fault} " + " ".join(
                f"{key}={value:.1f}" if isinstance(value, float) else f"{key}={value}"
                for key, value in details.items()))
            getattr(self, f"_do_{fault}")(details)
        while self.later:
            self._undo_due(time.monotonic())
            time.sleep(0.05)

    def run(self):
        """The verdict. All faults end with the storm; then every job must come to its end."""
        try:
            self.rage()
            self.fleet.heal()
            self.crowd.finish(REST_SECONDS_MAX)
            unended = wait_ends(self.fleet, self.ledger, REST_SECONDS_MAX)
            for job_id in unended[:5]:
                self.say(f"    {job_id} has not come to an end at every gateway")
        finally:
            self.crowd.stop()
        verdict = check(self.fleet, self.ledger)
        verdict.wrong += [f"the test itself: {text}" for text in self.crowd.problems]
        verdict.lost += [f"{job_id} has no end at some gateway" for job_id in unended
                         if self.ledger.orders[job_id].has_ended]
        return verdict
