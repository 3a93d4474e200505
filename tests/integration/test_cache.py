"""Redis remembers what a gateway has forgotten, at two operations a job at most."""

import os
import signal
import time

from support.processes import BUILD, wait_until

FORGETFUL = 16
SMALL = {"width": 64, "height": 64, "steps": 1}
STACK = {"worker_binary": BUILD / "test/bench/zero_worker",
         "service_settings": {"gateway": {"CACHE_ENTRIES_MAX": str(FORGETFUL)},
                              "router": {"LANE_CREDIT": "2"}}}


def operations(stack):
    return sum(service.metric("crafterse_redis_operations_total")
               for service in (stack.gateway, stack.uploader))


def redis_hits(stack):
    return stack.gateway.metric("crafterse_gateway_cache_lookups_total", result="hit_redis")


def draw_others(client, prompt):
    """So many pictures that the gateway forgets all earlier ones."""
    jobs = [client.submit(f"{prompt} {i}", seed=i, n=2, **SMALL)["id"] for i in range(FORGETFUL)]
    for job in jobs:
        assert client.wait(job)["state"] == "succeeded"
    return jobs


def test_orders_are_remembered_by_redis_at_two_operations_a_job(stack, client):
    before = operations(stack)
    exact = client.draw("a remembered sword", seed=1, n=2, **SMALL)
    any_seed = client.draw("a sword of any kind", **SMALL)
    jobs = 2 + len(draw_others(client, "something else"))
    assert operations(stack) - before <= 2 * jobs

    hits = redis_hits(stack)
    answer = client.post({"prompt": "a remembered sword", "seed": 1, "n": 2, **SMALL})
    assert answer.status_code == 200
    assert [i["url"] for i in answer.json()["images"]] == [i["url"] for i in exact["images"]]
    answer = client.post({"prompt": "a sword of any kind", "cache": "any-seed", **SMALL})
    assert answer.status_code == 200
    assert (answer.json()["url"], answer.json()["seed"]) == (any_seed["url"], any_seed["seed"])
    assert redis_hits(stack) == hits + 2


def test_an_entry_that_is_damaged_or_of_something_else_is_no_entry(stack, client, redis):
    first = client.draw("a precious sword", seed=2, **SMALL)
    other = client.draw("a cheap sword", seed=2, **SMALL)
    draw_others(client, "still something else")
    key, wrong = (f"crafterse:order:{job['images'][0]['content_hash']}" for job in (first, other))
    redis.client.set(key, redis.client.get(wrong))
    assert client.draw("a precious sword", seed=2, **SMALL)["url"] == first["url"]
    redis.client.set(key, b"\xff\xff")
    draw_others(client, "yet something else")
    assert client.draw("a precious sword", seed=2, **SMALL)["url"] == first["url"]


def test_who_bypasses_costs_redis_nothing(stack, client):
    before = operations(stack)
    client.draw("a secret sword", seed=3, cache="bypass", **SMALL)
    assert operations(stack) == before


def test_an_entry_is_so_small_that_30_mb_hold_60_thousand(stack, client, redis):
    job = client.draw("a small entry", seed=4, **SMALL)
    key = f"crafterse:order:{job['images'][0]['content_hash']}"
    assert redis.client.memory_usage(key) <= 500
    assert 0 < redis.client.ttl(key) <= 3600


def test_a_full_redis_of_30_mb_forgets_the_least_used(make_stack, own_redis, s3):
    own_redis.client.config_set("maxmemory", "30mb")
    own_redis.client.config_set("maxmemory-policy", "allkeys-lru")
    stack = make_stack(s3=s3, redis=own_redis, worker_binary=STACK["worker_binary"],
                       service_settings=STACK["service_settings"])
    client = stack.client
    job = client.draw("of many", seed=1, **SMALL)
    entry = own_redis.client.get(f"crafterse:order:{job['images'][0]['content_hash']}")
    fill = """for i = ARGV[1], ARGV[1] + 1999 do
                  local key = string.format("crafterse:order:%064x", i)
                  redis.call("SET", key, ARGV[2], "PX", 3600000)
              end"""
    for begin in range(0, 120_000, 2_000):
        own_redis.client.eval(fill, 0, begin, entry)

    def is_within():  # it forgets a few at a time
        info = own_redis.client.info()
        return info["used_memory"] - info["mem_clients_normal"] <= info["maxmemory"] == 30 << 20
    wait_until(is_within, 20)
    assert own_redis.client.info()["evicted_keys"] > 0
    kept = own_redis.client.dbsize()
    assert kept >= 50_000, f"30 MB held {kept}"
    fresh = client.draw("into the full one", seed=2, **SMALL)
    draw_others(client, "so many more")
    hits = redis_hits(stack)
    answer = client.post({"prompt": "into the full one", "seed": 2, **SMALL})
    assert answer.status_code == 200 and answer.json()["url"] == fresh["url"]
    assert redis_hits(stack) == hits + 1
    assert stack.uploader.metric("crafterse_uploader_cache_writes_total", outcome="failed") == 0


def test_a_redis_that_hangs_is_given_up_quickly(make_stack, own_redis, s3):
    stack = make_stack(s3=s3, redis=own_redis, worker_binary=STACK["worker_binary"])
    stack.client.draw("before", seed=1, **SMALL)
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for seed in range(2, 8):
            stack.client.draw("meanwhile", seed=seed, **SMALL)
        assert time.monotonic() - began < 10
        assert all(service.is_ready() for service in (stack.gateway, stack.uploader))
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    stack.client.draw("after", seed=9, **SMALL)
