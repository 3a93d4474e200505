"""The gateway's door: what is asked wrongly gets a precise answer, and the service goes on."""

import json
import re
import socket
import time

import pytest
import requests

from support.messages import Hits, Status
from support.player import Player


@pytest.fixture(scope="module")
def player(kafka, tmp_path_factory):
    one = Player(tmp_path_factory.mktemp("gateway"), kafka.brokers, RATE_PER_MINUTE="0",
                 HTTP_REQUEST_TIMEOUT="2s", HTTP_IDLE_TIMEOUT="20s")
    one.make_topics().start()
    yield one
    one.stop()


@pytest.fixture
def http(player):
    """A session with the key; checks afterwards that the service still answers."""
    session = player.client.session
    session.base = player.client.url
    yield session
    assert requests.get(f"{session.base}/", timeout=5).json()["name"] == "crafterse"
    assert player.gateway.is_running()


def error_of(answer, status, code):
    """Every error has one shape; returns it."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "details"}
    assert error["code"] == code, error
    assert error["message"]
    return error


def raw(player, data, timeout=10, pause=0.0, then=()):
    """Sends bytes as they are; returns everything that comes back until the end."""
    with socket.create_connection(("127.0.0.1", player.port), timeout=timeout) as connection:
        connection.sendall(data)
        try:
            for piece in then:
                time.sleep(pause)
                connection.sendall(piece)
        except OSError:
            pass  # the gateway hung up, as it may
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            received += b"<reset>"
    return received.decode(errors="replace")


def order_head(player, *headers):
    lines = ["POST /v1/generations HTTP/1.1", "Host: gateway", "Content-Type: application/json",
             f"Authorization: Bearer {player.stack.key}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# ---- Orders ------------------------------------------------------------------------------------

@pytest.mark.parametrize("body, part", [
    (b"", "empty"),
    (b"{\"prompt\": \"a\"", "ends too early"),
    (b"{\"prompt\": \"a\",}", "line 1"),
    (b"prompt=sword", "line 1, column 1"),
    (b"[1]", "JSON object"),
    (b"{\"prompt\": \"\xff\"}", "UTF-8: byte 0xff at line 1, column 13"),
    (b"{\"prompt\": \"a\\u0000b\"}", "NUL"),
    (b"{\"prompt\": \"a\", \"prompt\": \"b\"}", "twice"),
    (b"[" * 60000, "not JSON"),
])
def test_a_body_that_is_not_json_is_refused_with_the_place(http, body, part):
    answer = http.post(f"{http.base}/v1/generations", data=body, timeout=10,
                       headers={"Content-Type": "application/json"})
    assert part in error_of(answer, 400, "malformed_json")["message"]


def test_everything_wrong_is_listed_at_once_with_what_is_allowed(http):
    answer = http.post(f"{http.base}/v1/generations", timeout=10, json={
        "width": 513, "height": 4096, "steps": 0, "seed": -1, "stepz": 3, "scheduler": "magic",
        "cache": "maybe", "deadline": "soon", "n": 99, "priority": 1, "guidance_scale": "high"})
    error = error_of(answer, 422, "invalid_request")
    details = {detail["field"]: detail for detail in error["details"]}
    assert set(details) == {"prompt", "width", "height", "steps", "seed", "stepz", "scheduler",
                            "cache", "deadline", "n", "priority", "guidance_scale"}
    assert "not a multiple of 8" in details["width"]["problem"]
    assert all(detail["allowed"] for detail in details.values())
    assert "\"ddim\", \"euler\"" in details["scheduler"]["allowed"]


def test_an_unknown_model_is_refused_with_those_that_are_served(http):
    answer = http.post(f"{http.base}/v1/generations", json={"prompt": "a", "model": "gone"},
                       timeout=10)
    detail, = error_of(answer, 422, "invalid_request")["details"]
    assert detail["field"] == "model" and "\"demo\"" in detail["allowed"]


def test_another_content_type_is_refused(http):
    answer = http.post(f"{http.base}/v1/generations", data=b"{}", timeout=10,
                       headers={"Content-Type": "text/plain"})
    error_of(answer, 415, "unsupported_media_type")


def test_a_hundred_megabytes_are_refused_before_they_are_read(player, http):
    started = time.monotonic()
    text = raw(player, order_head(player, "Content-Length: 100000000") + b"x" * 10000)
    assert text.startswith("HTTP/1.1 413 ") and "body_too_large" in text
    assert time.monotonic() - started < 9
    assert player.gateway.memory_mib() < 80


def test_a_hundred_megabytes_in_chunks_are_refused_as_they_come(player, http):
    def pieces():
        for _ in range(1600):
            yield b"x" * 65536

    try:
        answer = http.post(f"{http.base}/v1/generations", data=pieces(), timeout=20,
                           headers={"Content-Type": "application/json"})
        error_of(answer, 413, "body_too_large")
    except requests.exceptions.ConnectionError:
        pass  # requests was still sending when the gateway closed: the next line is what counts
    text = raw(player, order_head(player, "Transfer-Encoding: chunked"),
               then=[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 40)
    assert text.startswith("HTTP/1.1 413 ") and "body_too_large" in text
    assert player.gateway.memory_mib() < 80


@pytest.mark.parametrize("size", [65535, 65536])
def test_a_body_up_to_the_limit_is_read(http, size):
    body = b"{\"prompt\": 1, \"x\": \"" + b"y" * size
    body = body[:size - 2] + b"\"}"
    answer = http.post(f"{http.base}/v1/generations", data=body, timeout=10,
                       headers={"Content-Type": "application/json"})
    error_of(answer, 422, "invalid_request")


def test_a_body_one_byte_past_the_limit_is_not(http):
    answer = http.post(f"{http.base}/v1/generations", data=b" " * 65537, timeout=10,
                       headers={"Content-Type": "application/json"})
    error_of(answer, 413, "body_too_large")


def test_an_order_in_chunks_is_taken(player, http):
    answer = http.post(f"{http.base}/v1/generations", timeout=20, data=iter([
        b"{\"prompt\":", b" \"a sword", b"\"}"]), headers={"Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text
    player.status(answer.json()["id"], "failed")


# ---- Requests ----------------------------------------------------------------------------------

def test_unknown_paths_and_methods_say_what_there_is(http):
    error_of(http.get(f"{http.base}/v2/nothing", timeout=5), 404, "not_found")
    answer = http.put(f"{http.base}/v1/models", timeout=5)
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"
    answer = http.patch(f"{http.base}/v1/generations/x", timeout=5)
    assert answer.headers["Allow"] == "GET, HEAD, DELETE"


def test_head_is_get_without_the_body(http):
    for path in ("/", "/v1/models"):
        answer, full = http.head(f"{http.base}{path}", timeout=5), http.get(f"{http.base}{path}",
                                                                            timeout=5)
        assert answer.status_code == 200 and answer.content == b""
        assert answer.headers["Content-Length"] == str(len(full.content))


def test_a_request_id_is_kept_when_it_is_one_and_made_when_not(http):
    def sent(value):
        return http.get(f"{http.base}/", headers={"x-request-id": value}, timeout=5).headers[
            "x-request-id"]
    assert sent("order-17.a") == "order-17.a"
    assert sent("two words") != "two words"
    assert len(sent("x" * 100)) == 36


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic eDp5", "Bearer ", "Bearer"])
def test_without_a_known_key_nothing_is_told(player, http, header):
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/v1/models"), ("GET", "/v1/generations/x"),
                         ("DELETE", "/v1/generations/x"), ("POST", "/v1/generations")):
        answer = requests.request(method, f"{http.base}{path}", headers=headers, timeout=5,
                                  json={"prompt": "a"} if method == "POST" else None)
        error_of(answer, 401, "invalid_api_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_refused_upload_does_not_cost_its_answer(http):
    for _ in range(5):
        answer = requests.post(f"{http.base}/v1/generations", data=b"x" * 500000, timeout=10)
        error_of(answer, 401, "invalid_api_key")


def test_headers_past_the_limit_are_refused(http):
    answer = http.get(f"{http.base}/", headers={"X-Long": "x" * 20000}, timeout=5)
    error_of(answer, 431, "header_too_large")


@pytest.mark.parametrize("data", [
    b"GARBAGE\r\n\r\n",
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # TLS on a plain port
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nhello",
    b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 300000 + b"\r\n\r\n",
    b"\r\n" * 2000 + b"\x00\x01\x02",
])
def test_what_is_no_request_gets_an_error_or_a_closed_connection(player, http, data):
    text = raw(player, data)
    assert text in ("", "<reset>") or re.match(r"HTTP/1\.[01] 4\d\d ", text), text[:200]


def test_garbage_after_a_good_request_does_not_cost_its_answer(player, http):
    text = raw(player, b"GET / HTTP/1.1\r\nHost: x\r\n\r\nXYZ garbage\r\n\r\n")
    assert text.startswith("HTTP/1.1 200 ") and "HTTP/1.1 400 " in text


def test_pipelined_requests_are_answered_in_order(player, http):
    text = raw(player, b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n" * 3 +
               b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert re.findall(r"HTTP/1\.1 (\d+)", text) == ["404", "404", "404", "200"]


def test_half_a_request_is_told_that_it_is_late(player, http):
    text = raw(player, order_head(player, "Content-Length: 100") + b"{\"pro")
    assert text.startswith("HTTP/1.1 408 ")
    assert json.loads(text.partition("\r\n\r\n")[2])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("head, piece", [
    (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
    (None, b"x"),
])
def test_a_trickle_does_not_hold_a_connection(player, http, head, piece):
    started = time.monotonic()
    text = raw(player, head or order_head(player, "Content-Length: 100"), pause=0.3,
               then=[piece] * 60)
    assert text.startswith("HTTP/1.1 408 ")
    assert time.monotonic() - started < 12


def test_a_path_with_a_nul_or_dots_stays_what_it_is(player, http):
    for path in ("/v1/models%00", "/objects/%2e%2e/%2e%2e/etc/passwd", "/objects/../../etc/passwd",
                 "/v1/generations/%2e%2e", "/objects//etc/passwd"):
        text = raw(player, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                           f"Authorization: Bearer {player.stack.key}\r\n\r\n".encode())
        assert text.startswith("HTTP/1.1 404 "), f"{path}: {text[:100]}"


def test_many_slow_connections_do_not_stop_the_rest(player, http):
    slow = []
    try:
        for _ in range(300):
            connection = socket.create_connection(("127.0.0.1", player.port), timeout=5)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
            slow.append(connection)
        started = time.monotonic()
        assert requests.get(f"{http.base}/", timeout=5).status_code == 200
        assert time.monotonic() - started < 3
    finally:
        for connection in slow:
            connection.close()


# ---- Pictures and models -----------------------------------------------------------------------

HASH = "ab" + "0123456789" * 6 + "cd"


def test_pictures_are_served_for_ever_and_once(player, http):
    body = b"\x89PNG\r\n\x1a\n" + b"x" * 100000
    path = player.stack.folder / "objects" / "ab" / f"{HASH}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    answer = requests.get(f"{http.base}/objects/ab/{HASH}.png", timeout=5)
    assert answer.status_code == 200 and answer.content == body
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    again = requests.get(answer.url, headers={"If-None-Match": answer.headers["ETag"]}, timeout=5)
    assert again.status_code == 304 and again.content == b""
    head = requests.head(answer.url, timeout=5)
    assert head.headers["Content-Length"] == str(len(body))


def test_nothing_but_pictures_leaves_the_folder(player, http):
    folder = player.stack.folder / "objects" / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    secret = player.stack.folder / "secret.txt"
    secret.write_text("secret")
    link = folder / f"ab{'1' * 62}.png"
    if not link.is_symlink():
        link.symlink_to(secret)
    for key in (f"ab/{link.name}", f"ab/{'f' * 64}.png", "ab", f"ab/{HASH}.txt"):
        answer = requests.get(f"{http.base}/objects/{key}", timeout=5)
        assert answer.status_code == 404, key


def test_models_are_what_workers_announce(player, http):
    player.announce("worker-2", "pixel")
    models = {model["name"]: model for model in player.client.models()["models"]}
    assert models["pixel"]["workers"] == 1
    assert models["demo"]["default"] and not models["pixel"]["default"]
    assert models["demo"]["limits"] == {"width_max": 1024, "height_max": 1024, "size_multiple": 8,
                                        "steps_max": 100}
    player.producer.produce(player.stack.topics.name("workers"), None, "worker-2")  # goodbye
    player.producer.flush(10)
    deadline = time.monotonic() + 10
    # It may be back, or be woken by an order: what it served can be ordered for a while.
    while [model["workers"] for model in player.client.models()["models"]
           if model["name"] == "pixel"] != [0]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert player.client.post({"prompt": "a", "model": "pixel"}).status_code == 202


def test_messages_that_are_not_protobuf_are_counted_and_skipped(player, http):
    name = "crafterse_gateway_undecodable_records_total"
    before = player.gateway.metric(name)
    for topic in ("requests", "status", "hits", "workers", "progress"):
        player.stack.topics.write(topic, b"\xff\xfe no message", key="x")
        player.stack.topics.write(topic, b"", key="x")
    nameless = Hits(ends=[Status()])
    nameless.envelope.sender = "a gateway whose hit names no job"
    player.stack.topics.write("hits", nameless.SerializeToString(), key="x")
    deadline = time.monotonic() + 10
    while player.gateway.metric(name) < before + 10:
        assert time.monotonic() < deadline, player.gateway.metric(name)
        time.sleep(0.05)
    job = player.client.submit()
    player.run(job)
    assert player.client.wait(job["id"])["state"] == "succeeded"
