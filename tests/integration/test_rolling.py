"""A rolling restart as Kubernetes does it: the new one is ready, clients go to it, the old one gets
SIGTERM. Orders come all the while, and none of them is refused or lost."""

import threading

from integration.test_dispatch import ZERO_WORKER
from support.gateway import Gateway


class Load:
    """A client that orders one picture after another, each through the gateway that is current."""

    def __init__(self, stack):
        self.stack = stack
        self.client = stack.client
        self.jobs, self.failures = [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stopping.wait(0.05):
            client = self.client  # a request that has begun stays with its gateway
            try:
                self.jobs.append(client.submit(f"sword {len(self.jobs)}", seed=len(self.jobs),
                                               steps=4)["id"])
            except Exception as failure:  # pylint: disable=broad-except
                self.failures.append(repr(failure)[:500])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(60)


def replace(stack, old, new, load=None):
    before = len(load.jobs)
    stack.add(new).start()
    stack.services[new].wait_ready()
    if new.startswith("gateway"):
        load.client = Gateway(f"http://127.0.0.1:{stack.services[new].port('http')}", stack.key)
        # What preStop waits for: the endpoint is gone from every client's list.
        while load.thread.is_alive() and len(load.jobs) < before + 2 and not load.failures:
            load.stopping.wait(0.05)
    stack.services[old].stop_cleanly()


def test_every_service_is_replaced_under_load_and_no_request_fails(make_stack, s3, redis, capsys):
    stack = make_stack(s3=s3, redis=redis, worker_binary=ZERO_WORKER,
                       service_settings={"worker": {"STEP_TIME": "5ms"}})
    with Load(stack) as load:
        replace(stack, "router", "router2", load)
        replace(stack, "worker1", "worker2", load)
        replace(stack, "uploader", "uploader2", load)
        replace(stack, "gateway", "gateway2", load)
    assert load.failures == []
    assert len(load.jobs) > 20
    ends = [load.client.wait(job, timeout=120)["state"] for job in load.jobs]
    assert set(ends) == {"succeeded"}
    with capsys.disabled():
        print(f"\n{len(ends)} orders while every service was replaced: all succeeded")
