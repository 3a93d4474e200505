"""What the gateway does when there is too much of something, when a peer is away, at its end."""

import socket
import threading
import time

import pytest
import requests

from support.messages import CacheEntry, Image
from support.player import AutoPlayer, Player
from support.processes import wait_until


@pytest.fixture
def make_player(kafka, tmp_path):
    made = []

    def make(brokers=None, announce=True, **settings):
        folder = tmp_path / f"gateway{len(made)}"
        folder.mkdir()
        player = Player(folder, brokers or kafka.brokers, **settings)
        made.append(player)
        return player.make_topics().start(announce)
    yield make
    for player in made:
        try:
            player.stop()
        finally:
            player.gateway.kill()


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_a_key_that_submits_too_fast_is_told_when_to_come_again(make_player):
    player = make_player(RATE_PER_MINUTE="12", RATE_BURST="3")
    answers = [player.client.post({"prompt": "a"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
    assert code(answers[3]) == (429, "rate_limit_exceeded")
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 5
    assert player.client.models()["models"]  # asking is not limited
    assert player.gateway.metric("crafterse_gateway_refused_total", reason="rate") == 2
    upload = player.client.give(bytes(2 << 20))  # refused before it is there
    assert code(upload) == (429, "rate_limit_exceeded") and upload.headers["Retry-After"]
    time.sleep(int(answers[4].headers["Retry-After"]))
    assert player.client.post({"prompt": "a"}).status_code == 202


def test_too_many_unfinished_jobs_are_refused_until_some_end(make_player):
    player = make_player(JOBS_IN_FLIGHT_MAX="3")
    jobs = [player.client.submit() for _ in range(3)]
    answer = player.client.post({"prompt": "a"})
    assert code(answer) == (503, "overloaded") and answer.headers["Retry-After"]
    player.status(jobs[0]["id"], "failed")
    wait_until(lambda: player.client.post({"prompt": "a"}).status_code == 202, 10)


def test_without_a_worker_nothing_is_accepted(make_player):
    player = make_player(announce=False)
    answer = player.client.post({"prompt": "a"})
    assert code(answer) == (503, "no_capacity") and answer.headers["Retry-After"]
    assert player.requests() == []


def test_finished_jobs_are_forgotten_after_their_time(make_player):
    player = make_player(JOB_RETENTION="2s")
    job = player.client.post({"prompt": "a"}, Idempotency_Key="k").json()["id"]
    player.status(job, "failed")
    player.client.wait(job)
    url = f"{player.client.url}/v1/generations/{job}"

    def is_gone():
        answer = player.client.session.get(url, timeout=5)
        return answer.status_code == 410 and code(answer)[1] == "job_expired"
    wait_until(is_gone, 10, interval=0.2)
    again = player.client.post({"prompt": "a"}, Idempotency_Key="k")
    assert code(again) == (410, "job_expired") and job in again.json()["error"]["message"]
    assert len(player.requests(job)) == 1


def test_connections_past_the_limit_wait_and_are_served(make_player):
    player = make_player(HTTP_CONNECTIONS_MAX="10", HTTP_IDLE_TIMEOUT="2s")
    idle = [socket.create_connection(("127.0.0.1", player.port)) for _ in range(10)]
    try:
        started = time.monotonic()
        assert requests.get(f"{player.client.url}/", timeout=10).status_code == 200
        assert time.monotonic() - started < 9  # when the idle ones were closed
    finally:
        for connection in idle:
            connection.close()


def test_one_address_may_not_take_all_connections(make_player):
    player = make_player(HTTP_CONNECTIONS_PER_ADDRESS_MAX="5")

    def is_served(connection):
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return connection.recv(100).startswith(b"HTTP/1.1 200 ")
        except (ConnectionResetError, BrokenPipeError):
            return False
    connections = [socket.create_connection(("127.0.0.1", player.port), timeout=10)
                   for _ in range(20)]
    served = sum(is_served(connection) for connection in connections)
    for connection in connections:
        connection.close()
    assert 1 <= served <= 5


def test_pictures_past_a_mebibyte_need_a_real_kafka(make_player):
    player = make_player(embedded=True)
    answer = player.client.post({"prompt": "a", "width": 1024, "height": 512})
    assert code(answer) == (422, "invalid_request")
    assert "KAFKA=apache" in answer.json()["error"]["details"][0]["problem"]
    assert player.client.post({"prompt": "a", "width": 512, "height": 512}).status_code == 202


def test_a_gateway_that_is_asked_to_leave_finishes_what_it_holds(make_player):
    player = make_player()
    job = player.client.submit()
    results = {}

    def follow():
        results["events"] = [name for _, name, _ in player.client.events(job["id"])]

    def wait():
        results["wait"] = player.client.post({"prompt": "w"}, Prefer="wait=60")
    threads = [threading.Thread(target=follow), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(player.requests()) == 2, 10)
    time.sleep(0.3)
    url = player.client.url
    started = time.monotonic()
    assert player.gateway.terminate(20) == 0
    assert time.monotonic() - started < 15  # and not the 60 s of the wait
    for thread in threads:
        thread.join(10)
    assert results["events"] == ["accepted"]
    assert results["wait"].status_code == 202 and results["wait"].json()["state"] == "accepted"
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{url}/", timeout=5)


def test_bodies_are_bounded_together_and_orders_have_room_of_their_own(make_player):
    player = make_player(HTTP_INPUT_MAX="512KiB", HTTP_BODIES_MAX="1MiB")
    client = player.client
    head = (f"POST /v1/inputs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {player.stack.key}\r\n"
            "Content-Type: image/png\r\n")
    slow = [socket.create_connection(("127.0.0.1", player.port), timeout=10) for _ in range(2)]
    slow[0].sendall(f"{head}Content-Length: 500000\r\n\r\n".encode() + bytes(499_999))
    slow[1].sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n30D40\r\n".encode() + bytes(200_000))
    wait_until(lambda: player.gateway.metric("crafterse_gateway_body_bytes") == 699_999, 10)
    answer = client.give(bytes(100_000))  # 786,432 bytes are for large ones
    assert code(answer) == (503, "overloaded") and answer.headers["Retry-After"]
    assert client.post({"prompt": "a"}).status_code == 202
    slow[1].sendall(b"\r\n186A0\r\n" + bytes(100_000) + b"\r\n0\r\n\r\n")  # grows past it
    assert slow[1].recv(4096).startswith(b"HTTP/1.1 503 ")
    assert player.gateway.metric("crafterse_gateway_refused_total", reason="overload") == 2
    slow[0].sendall(b"\0")
    assert slow[0].recv(4096).startswith(b"HTTP/1.1 422 ")  # it was no picture
    assert client.give(bytes(500_000)).status_code == 422
    wait_until(lambda: player.gateway.metric("crafterse_gateway_body_bytes") == 0, 10)
    for connection in slow:
        connection.close()


def test_an_event_stream_is_told_to_come_back(make_player):
    player = make_player()
    job = player.client.submit()
    with player.client.session.get(f"{player.client.url}/v1/generations/{job['id']}/events",
                                   stream=True, timeout=20) as answer:
        lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
        assert next(lines) == "retry: 2000"
        while not next(lines).startswith("data: "):
            pass
        threading.Timer(0.2, player.gateway.child.terminate).start()
        rest = "\n".join(lines)
    assert "retry: 500" in rest
    assert player.gateway.child.wait(10) == 0


def test_a_gateway_leaves_in_order_however_many_come_meanwhile(own_kafka, make_player):
    """Over connections that stay open, to its last moment, while Kafka is away: event streams are
    told to come back, and orders that nobody can confirm any more to be sent again."""
    player = make_player(own_kafka.brokers, DRAIN_TIMEOUT="500ms")
    client = player.client
    job = client.submit()
    host = f"Host: x\r\nAuthorization: Bearer {player.stack.key}\r\n"
    order = (f"POST /v1/generations HTTP/1.1\r\n{host}Content-Type: application/json\r\n"
             'Content-Length: 14\r\n\r\n{"prompt":"a"}').encode()
    connections = [socket.create_connection(("127.0.0.1", player.port), timeout=10)
                   for _ in range(300)]
    for connection in connections:
        connection.sendall(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    own_kafka.kill()
    connections[0].sendall(order)  # keeps the gateway from leaving at once
    time.sleep(0.1)
    player.gateway.child.terminate()
    wait_until(lambda: "msg=draining" in player.gateway.log(), 10)
    with client.session.get(f"{client.url}/v1/generations/{job['id']}/events", stream=True,
                            timeout=20) as answer:
        assert "retry: 500" in answer.text
    asked = 1
    for connection in connections[1:]:
        if not player.gateway.is_running():
            break
        try:
            connection.sendall(order)
            asked += 1
        except OSError:
            break
        time.sleep(0.02)
    assert player.gateway.child.wait(30) == 0
    assert connections[0].recv(4096).startswith(b"HTTP/1.1 503 ") and 20 < asked < 300
    for connection in connections:
        connection.close()


def test_while_the_broker_is_away_nothing_is_accepted_and_afterwards_all_is(own_kafka, make_player):
    player = make_player(own_kafka.brokers, ACCEPT_TIMEOUT="5s")
    before = player.client.submit()
    own_kafka.kill()
    answer = player.client.post({"prompt": "a"})
    assert code(answer) == (503, "kafka_unavailable") and answer.headers["Retry-After"]
    wait_until(lambda: not player.gateway.is_ready(), 30)
    started = time.monotonic()
    assert code(player.client.post({"prompt": "a"})) == (503, "kafka_unavailable")
    assert code(player.client.give(bytes(1000))) == (503, "kafka_unavailable")
    assert time.monotonic() - started < 4  # it knows by now, without waiting for 5 s
    assert player.client.get(before["id"])["state"] == "accepted"  # what is known is told
    own_kafka.start()
    player.gateway.wait_ready(60)
    player.announce()
    after = player.client.submit()
    assert player.client.get(before["id"])["state"] == "accepted"
    player.run(after)
    assert player.client.wait(after["id"])["state"] == "succeeded"


def test_a_gateway_that_starts_before_its_broker_waits_for_it(tmp_path, kafka):
    player = Player(tmp_path, kafka.brokers)  # no topics yet
    player.gateway.start()
    try:
        wait_until(lambda: player.gateway.get("/healthz").status_code == 200, 10)
        assert not player.gateway.is_ready()
        assert code(player.client.post({"prompt": "a"})) == (503, "kafka_unavailable")
        assert player.gateway.is_running()
        player.make_topics()
        player.gateway.wait_ready(30)
    finally:
        player.stop()


def test_redis_answers_for_pictures_that_this_gateway_never_saw(make_player, own_redis):
    import redis as client_library
    player = make_player(redis=own_redis)
    body = {"prompt": "from redis", "seed": 9}
    job = player.client.post({**body, "cache": "bypass"}).json()
    content_hash = job["images"][0]["content_hash"]
    player.status(job["id"], "failed")
    entry = CacheEntry(images=[Image(seed=9, content_hash=content_hash, bytes=55, width=128,
                                     height=128,
                                     object_key=f"{content_hash[:2]}/{content_hash}.png")])
    store = client_library.Redis.from_url(own_redis.url)
    store.set(f"crafterse:order:{content_hash}", entry.SerializeToString())
    answer = player.client.post(body)
    assert answer.status_code == 200 and answer.json()["images"][0]["bytes"] == 55
    assert player.gateway.metric("crafterse_gateway_cache_lookups_total", result="hit_redis") == 1
    commands = store.info("commandstats")
    assert commands["cmdstat_get"]["calls"] == 1


def test_redis_away_or_wrong_costs_nothing_but_the_hit(make_player, own_redis):
    import redis as client_library
    player = make_player(redis=own_redis)
    store = client_library.Redis.from_url(own_redis.url)
    job = player.client.post({"prompt": "x", "seed": 1, "cache": "bypass"}).json()
    store.set(f"crafterse:order:{job['images'][0]['content_hash']}", b"\xff no picture")
    assert player.client.post({"prompt": "x", "seed": 1}).status_code == 202
    own_redis.kill()
    for seed in range(2, 6):
        started = time.monotonic()
        assert player.client.post({"prompt": "x", "seed": seed}).status_code == 202
        assert time.monotonic() - started < 5


def test_a_hundred_clients_wait_at_once_and_nothing_is_lost(make_player):
    player = make_player(RATE_PER_MINUTE="0")
    answers = []

    def order(number):
        answers.append(player.client.post({"prompt": f"p{number}"}, Prefer="wait=40"))
    with AutoPlayer(player):
        threads = [threading.Thread(target=order, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [answer.status_code for answer in answers] == [200] * 100
    assert len({answer.json()["id"] for answer in answers}) == 100
    assert all(answer.json()["state"] == "succeeded" for answer in answers)
    if "asan" not in str(player.gateway.command[0]):
        assert player.gateway.memory_mib() < 30
