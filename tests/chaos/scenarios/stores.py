"""Redis and the object store: the one may be lost, the other may not."""

import time

from chaos.scenarios.kafka import ONE_EACH
from chaos.scenarios.scenario import Desk, scenario
from support.messages import State, Status
from support.processes import wait_until


def redis_faults(world):
    """(what it is, how it begins, how it ends)"""
    redis, proxy = world.redis, world.redis_proxy

    def slow():
        proxy.latency = 5
    return (
        ("killed", redis.kill, redis.start),
        ("FLUSHALL", lambda: redis.client.flushall(), lambda: None),
        ("read-only", lambda: redis.client.execute_command("REPLICAOF", "127.0.0.1", "1"),
         lambda: redis.client.execute_command("REPLICAOF", "NO", "ONE")),
        ("5 s latency", slow, proxy.heal),
    )


@scenario(10, "Redis: kill, FLUSHALL, read-only, 5 s latency",
          "no job lost, none seen twice, and jobs still take less than 5 s; the services say that "
          "the cache fails")
def redis_away(run):
    fleet = run.fleet(counts=ONE_EACH)
    desk = Desk(run, fleet)
    desk.order(cache="exact")
    for name, begin, end in redis_faults(run.world):
        begin()
        began = time.monotonic()
        orders = [desk.order(cache="exact", seed=7000 + i, prompt=f"with Redis {name}")
                  for i in range(3)]
        wait_until(lambda o=orders: all((desk.look(order) or {}).get("state") == "succeeded"
                                        for order in o), 30, interval=0.1)
        took = time.monotonic() - began
        end()
        run.note(f"{name}: three jobs in {took:.1f} s")
        assert took < 15, f"{name}: {took:.1f} s"
    failures = fleet.services["uploader1"].metric("crafterse_uploader_cache_writes_total",
                                                  outcome="failed")
    run.note(f"the uploader counted {failures:.0f} failed cache writes")
    assert failures > 0, "no metric says that Redis failed"
    desk.settle()


@scenario(11, "S3: 500, 503, slow, answer lost after the bytes, reset mid-body, 403, 412, bad ETag",
          "retried with back-off and jitter until it works; 403 is raised as an alert and is not a "
          "hot loop")
def store_faults(run):
    fleet = run.fleet(counts=ONE_EACH)
    desk = Desk(run, fleet)
    s3 = run.world.s3
    uploader = fleet.services["uploader1"]
    for fault in ("error", "slow_down", "down", "lost_answer", "reset", "bad_etag", "denied"):
        s3.fault = fault
        asked = s3.arrived
        order = desk.order()
        began = time.monotonic()
        wait_until(lambda o=order: State.STATE_RENDERED in [
            s.state for s in fleet.topics.read("status", Status)
            if s.envelope.job_id == o.id], 30, interval=0.1)
        time.sleep(3)
        requests = s3.arrived - asked
        if fault == "denied":
            assert uploader.metric("crafterse_uploader_store_refusing") == 1, "no alert on 403"
        s3.fault = None
        wait_until(lambda o=order: (desk.look(o) or {}).get("state") == "succeeded", 30,
                   interval=0.1)
        run.note(f"{fault}: {requests} requests in {time.monotonic() - began:.1f} s, then stored")
        # 100, 200, 400, 800, 1000 ms ...: about 7 in 3 s; a hot loop makes thousands.
        assert requests <= 30, f"{fault}: {requests} requests in 3 s is a hot loop"
    s3.delay = 8  # past the uploader's own patience (S3_TIMEOUT 5 s)
    slow = desk.order()
    time.sleep(7)
    s3.delay = 0
    wait_until(lambda: (desk.look(slow) or {}).get("state") == "succeeded", 40, interval=0.1)
    # 412: the object is there already.
    again = desk.order(**{key: slow.body[key] for key in ("prompt", "seed")})
    wait_until(lambda: (desk.look(again) or {}).get("state") == "succeeded", 30, interval=0.1)
    refused = s3.count("PUT", 412)
    run.note(f"{refused} puts were answered 412: the object was there")
    assert refused > 0
    desk.settle()
