"""What a scenario is, and what it runs in."""

import time
import traceback

from chaos.checker import Verdict, check
from chaos.clients import Client, wait_ends
from chaos.ledger import Ledger

SCENARIOS = {}
SMALL = {"width": 64, "height": 64, "steps": 1, "model": "zero", "cache": "bypass"}


class Scenario:
    def __init__(self, number, title, criterion, scaled, run):
        self.number, self.title, self.criterion = number, title, criterion
        self.scaled = scaled
        self.run = run

    @property
    def is_scaled(self):
        return self.scaled is not None


def scenario(number, title, criterion, scaled=None):
    """scaled: what the form says that runs without SOAK=1."""
    def note(run):
        SCENARIOS[number] = Scenario(number, title, criterion, scaled, run)
        return run
    return note


class Run:
    """One scenario at work. Services that it starts are stopped, and the world is healed, at its
    end."""

    def __init__(self, world, seed=1, soak=False):
        self.world = world
        self.seed = seed
        self.soak = soak
        self.total = Verdict()
        self.notes = []
        self.fleets = []
        self.numbers = 0

    def note(self, text):
        self.notes.append(text)

    def fleet(self, start=True, **options):
        if self.soak:  # the product's own wait, which costs the brokers least
            options["settings"] = {"KAFKA_FETCH_WAIT": "0ms", **(options.get("settings") or {})}
        fleet = self.world.fleet(**options)
        self.fleets.append(fleet)
        return fleet.start() if start else fleet

    def body(self, **fields):
        """An order that was never made before."""
        self.numbers += 1
        return {**SMALL, "prompt": f"order {self.numbers}", "seed": self.numbers, **fields}

    def stop(self, fleet):
        """Services must end cleanly when they are asked to."""
        self.fleets.remove(fleet)
        try:
            fleet.stop()
        finally:
            fleet.abandon()

    def finish(self, problem):
        """What went wrong at last: the scenario's own problem first."""
        for fleet in list(self.fleets):
            try:
                if problem is None:
                    self.stop(fleet)
                else:
                    fleet.abandon()
            except Exception:  # pylint: disable=broad-except
                problem = problem or traceback.format_exc(limit=-3)
        try:
            self.world.heal()
        except Exception:  # pylint: disable=broad-except
            problem = problem or traceback.format_exc(limit=-3)
        return problem


class Desk:
    """A ledger with one client a key: for scenarios that act one step at a time."""

    def __init__(self, run, fleet):
        self.run = run
        self.fleet = fleet
        self.ledger = Ledger()
        self.clients = {key: Client(fleet, self.ledger, key) for key in fleet.keys}

    def order(self, turn=0, key="alpha", idempotency_key=None, patience=60, **fields):
        order = self.clients[key].submit(self.run.body(**fields), turn, idempotency_key, patience)
        assert order is not None, f"no gateway took an order: {self.ledger.wrongs}"
        return order

    def look(self, order, turn=0):
        return self.clients[order.key].look(order, turn)

    def wait_for(self, order, *states, timeout=30):
        """Until one of its gateways shows one of these states, or the job is over."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            job = self.look(order)
            if job is not None and (job["state"] in states or order.has_ended):
                return job
            time.sleep(0.03)
        raise AssertionError(f"{order.id} is not {states} within {timeout} s: {job}")

    def settle(self, timeout=90, poisoned=()):
        """Every order comes to its end at every gateway, and nothing is wrong; returns the
        verdict."""
        unended = wait_ends(self.fleet, self.ledger, timeout)
        verdict = check(self.fleet, self.ledger, poisoned)
        verdict.lost += [f"{job_id} has no end at some gateway" for job_id in unended
                         if self.ledger.orders[job_id].has_ended]
        self.run.total.add(verdict)
        assert verdict.is_clean, "\n".join(verdict.problems()[:40])
        return verdict
