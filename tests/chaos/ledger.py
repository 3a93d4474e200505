"""What clients were promised and what they have seen: the side of the story that the checker
compares with the topics and the store."""

import threading
import time

ENDS = ("succeeded", "failed", "cancelled", "expired")
RANKS = {"accepted": 0, "queued": 1, "dispatched": 2, "running": 3, "rendered": 4,
         "succeeded": 10, "failed": 11, "cancelled": 12, "expired": 13}


class Order:
    """One job that was answered with 2xx."""

    def __init__(self, job_id, key, body):
        self.id = job_id
        self.key = key          # name of the API key
        self.body = body
        self.accepted_s = time.monotonic()
        self.ends = {}          # state -> who saw it first
        self.ended_at = {}      # gateway -> when it first showed an end (monotonic)
        self.wrongs = []        # what no client may ever see
        self.cancel_asked = False
        self.is_hit = False     # from the cache: docs/HTTP-API.md, Ordering
        self.is_forgotten = False
        self.content_hashes = []
        self.reads = 0

    @property
    def has_ended(self):
        return bool(self.ends)


class Ledger:
    """Thread-safe."""

    def __init__(self):
        self.orders = {}
        self.refused = 0        # 4xx and 503: nothing was promised
        self.unanswered = 0     # the connection broke: perhaps accepted
        self.probes = 0         # looks at another key's job
        self.wrongs = []        # about no job in particular
        self.lock = threading.Lock()

    def accept(self, job, key, body, is_idempotent=False):
        with self.lock:
            order = self.orders.get(job["id"])
            if order is None:
                order = self.orders[job["id"]] = Order(job["id"], key, body)
                order.is_hit = job["state"] == "succeeded" and not is_idempotent
                order.content_hashes = [image["content_hash"] for image in job["images"]]
            elif order.key != key:
                order.wrongs.append(f"given to {order.key} and to {key}")
        self.see(order, job, "the answer to its order")
        return order

    def see(self, order, job, who, gateway=None, asked_s=0):
        """A job's body as any client got it from anywhere. gateway: who answered a question that
        was asked at this moment."""
        with self.lock:
            order.reads += 1
            if job["id"] != order.id:
                order.wrongs.append(f"{who} shows job {job['id']} in its place")
                return
            state = job["state"]
            pictures = [job.get("url")] + [image.get("url") for image in job.get("images", [])]
            if "cancelled" in order.ends and any(pictures):
                order.wrongs.append(f"{who} shows a picture after the cancel was confirmed")
            ended_s = order.ended_at.get(gateway)
            if state not in ENDS and ended_s is not None and ended_s < asked_s:
                order.wrongs.append(f"{who} shows it as {state} after its end")
            if state in ENDS:
                if gateway is not None:
                    order.ended_at.setdefault(gateway, time.monotonic())
                order.ends.setdefault(state, who)
                if state == "succeeded" and not all(pictures):
                    order.wrongs.append(f"{who}: succeeded without the picture's address")

    def wrong(self, order, text):
        with self.lock:
            (order.wrongs if order is not None else self.wrongs).append(text)

    def count_refused(self):
        with self.lock:
            self.refused += 1

    def count_unanswered(self):
        with self.lock:
            self.unanswered += 1

    def count_probe(self):
        with self.lock:
            self.probes += 1

    def unended(self):
        with self.lock:
            return [order for order in self.orders.values() if not order.has_ended]
