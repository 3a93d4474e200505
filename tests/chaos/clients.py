"""Clients of the gateways: patient ones, that go on with the next gateway when one does not answer,
as a load balancer would have them. All that they see goes to the ledger."""

import heapq
import json
import threading
import time

import requests

from chaos.ledger import ENDS, RANKS

TRY_AGAIN = (requests.exceptions.RequestException,)
EVENT_STATES = {"accepted": 0, "queued": 1, "dispatched": 2, "started": 3, "rendered": 4,
                "uploaded": 9}


class Client:
    """One connection of one thread."""

    def __init__(self, fleet, ledger, key):
        self.fleet = fleet
        self.ledger = ledger
        self.key = key
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {fleet.keys[key]}"

    def url(self, turn):
        """turn: a number, or the address of one gateway."""
        if isinstance(turn, str):
            return turn
        gateways = self.fleet.gateways
        return gateways[turn % len(gateways)]

    def call(self, method, turn, path, timeout=6, **options):
        return self.session.request(method, f"{self.url(turn)}{path}", timeout=timeout, **options)

    # ---- Ordering ----------------------------------------------------------------------------

    def submit(self, body, turn=0, idempotency_key=None, patience=60):
        """The order, or None when nobody took it in time. Without an idempotency key it is not sent
        again when the connection broke: it may have been accepted."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                answer = self.call("POST", turn, "/v1/generations", json=body, headers=headers,
                                   timeout=15)
            except requests.exceptions.ConnectionError:
                self.ledger.count_unanswered()
                answer = None
            except TRY_AGAIN:
                self.ledger.count_unanswered()
                if not idempotency_key:
                    return None
                answer = None
            if answer is not None and answer.status_code in (200, 202):
                return self.ledger.accept(answer.json(), self.key, body, bool(idempotency_key))
            if answer is not None:
                self.ledger.count_refused()
                if answer.status_code != 503:
                    self.ledger.wrong(None, f"POST {json.dumps(body)} was answered "
                                      f"{answer.status_code} {answer.text[:300]}")
                    return None
            turn += 1
            time.sleep(0.3)
        return None

    # ---- Looking -----------------------------------------------------------------------------

    def look(self, order, turn=0):
        """One GET; the job's body, or None when the gateway cannot say now."""
        asked_s = time.monotonic()
        try:
            answer = self.call("GET", turn, f"/v1/generations/{order.id}")
        except TRY_AGAIN:
            return None
        if answer.status_code == 200:
            job = answer.json()
            self.ledger.see(order, job, f"GET at {self.url(turn)}", self.url(turn), asked_s)
            return job
        if answer.status_code == 404 and order.is_hit:
            order.is_forgotten = True  # its gateway was killed before Kafka had the end
        elif answer.status_code == 410 and order.has_ended and self.fleet.forgets_jobs:
            order.is_forgotten = True
        elif answer.status_code != 503:
            self.ledger.wrong(order, f"GET at {self.url(turn)} of an accepted job was answered "
                              f"{answer.status_code} {answer.text[:200]}")
        return None

    def cancel(self, order, turn=0):
        """DELETE until a gateway takes it (or says that the job is over)."""
        order.cancel_asked = True
        for attempt in range(20):
            try:
                answer = self.call("DELETE", turn + attempt, f"/v1/generations/{order.id}")
            except TRY_AGAIN:
                time.sleep(0.2)
                continue
            if answer.status_code in (200, 202):
                self.ledger.see(order, answer.json(), "the answer to its cancel")
                return True
            if answer.status_code == 409 or answer.status_code == 404 and order.is_hit:
                return False
            if answer.status_code != 503:
                self.ledger.wrong(order, f"DELETE was answered {answer.status_code} "
                                  f"{answer.text[:200]}")
                return False
            time.sleep(0.2)
        return False

    def probe(self, order, turn=0):
        """This client's key is not the order's: nothing of it may be seen."""
        assert self.key != order.key
        self.ledger.count_probe()
        for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
            try:
                answer = self.call(method, turn, f"/v1/generations/{order.id}{path}",
                                   stream=True)
            except TRY_AGAIN:
                continue
            with answer:
                if answer.status_code not in (404, 503):
                    self.ledger.wrong(order, f"{method} {path} with another key was answered "
                                      f"{answer.status_code}")

    # ---- Events ------------------------------------------------------------------------------

    def watch(self, order, stopping, turn=0):
        """Follows the event stream over all gateways until it is done or told to stop."""
        last = None
        while not stopping.is_set():
            try:
                last, is_done = self._watch_once(order, turn, last)
                if is_done:
                    return
            except TRY_AGAIN:
                pass
            turn += 1
            stopping.wait(0.3)

    def _watch_once(self, order, turn, last):
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = "-".join(map(str, last))
        with self.call("GET", turn, f"/v1/generations/{order.id}/events", headers=headers,
                       stream=True, timeout=(3, 20)) as answer:
            if answer.status_code != 200:
                if answer.status_code == 404 and order.is_hit:
                    order.is_forgotten = True
                    return last, True
                if answer.status_code not in (204, 503):
                    self.ledger.wrong(order, f"its events were answered {answer.status_code}")
                return last, answer.status_code == 204
            for event_id, name, data in events_of(answer):
                last = self._check_event(order, last, event_id, name, data)
                if name == "done":
                    return last, True
        return last, False

    def _check_event(self, order, last, event_id, name, data):
        place = tuple(int(part) for part in event_id.split("-"))
        if last is not None and (place < last or (place == last and name != "preview")):
            self.ledger.wrong(order, f"events went backwards: {name} {event_id} after {last}")
        if name == "done":
            if RANKS.get(data["state"]) != place[0]:
                self.ledger.wrong(order, f"done {event_id} says {data['state']}")
            self.ledger.see(order, data, "the end of its events")
        elif name in EVENT_STATES and EVENT_STATES[name] != place[0]:
            self.ledger.wrong(order, f"event {name} has the id {event_id}")
        return place


def events_of(answer):
    """(id, name, data) of a stream of server-sent events."""
    event = {}
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        if line == "":
            if "data" in event and "id" in event:
                yield event["id"], event.get("event"), json.loads(event["data"])
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            event[name] = value.lstrip(" ")


class Crowd:
    """Threads that act for clients at their times."""

    def __init__(self, fleet, ledger, threads=10):
        self.fleet = fleet
        self.ledger = ledger
        self.actions = []  # a heap of (due, number, function)
        self.changed = threading.Condition()
        self.stopping = threading.Event()
        self.busy = 0
        self.number = 0
        self.problems = []
        self.watchers = []
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def at(self, due, act):
        """act(clients) is called at this moment (monotonic); clients[key] is a Client."""
        with self.changed:
            self.number += 1
            heapq.heappush(self.actions, (due, self.number, act))
            self.changed.notify()

    def watch(self, order, turn):
        client = Client(self.fleet, self.ledger, order.key)
        thread = threading.Thread(target=client.watch, args=(order, self.stopping, turn),
                                  daemon=True)
        self.watchers.append(thread)
        thread.start()

    def _next(self):
        with self.changed:
            while not self.stopping.is_set():
                wait = self.actions[0][0] - time.monotonic() if self.actions else None
                if wait is not None and wait <= 0:
                    self.busy += 1
                    return heapq.heappop(self.actions)[2]
                self.changed.wait(wait)
        return None

    def _run(self):
        clients = {key: Client(self.fleet, self.ledger, key) for key in self.fleet.keys}
        while True:
            act = self._next()
            if act is None:
                return
            try:
                act(clients)
            except Exception as problem:  # pylint: disable=broad-except
                self.problems.append(repr(problem))
            with self.changed:
                self.busy -= 1
                self.changed.notify_all()

    def finish(self, timeout):
        """Until all actions are done."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while self.actions or self.busy:
                if not self.changed.wait(max(0, deadline - time.monotonic())):
                    break
        return not self.actions and not self.busy

    def stop(self):
        for thread in self.watchers:
            thread.join(10)
        self.stopping.set()
        with self.changed:
            self.changed.notify_all()
        for thread in self.threads + self.watchers:
            thread.join(10)


def wait_ends(fleet, ledger, timeout):
    """Asks every gateway about every order until each one shows an end; returns those that did not
    come to one anywhere."""
    clients = {key: Client(fleet, ledger, key) for key in fleet.keys}
    deadline = time.monotonic() + timeout
    waiting = {(order.id, turn) for order in ledger.orders.values()
               if not (order.has_ended and fleet.forgets_jobs)
               for turn in range(len(fleet.gateways))}
    while waiting and time.monotonic() < deadline:
        for job_id, turn in sorted(waiting):
            order = ledger.orders[job_id]
            job = clients[order.key].look(order, turn)
            if order.is_forgotten or job is not None and job["state"] in ENDS:
                waiting.discard((job_id, turn))
        if waiting:
            time.sleep(0.5)
    return sorted({job_id for job_id, _ in waiting})
