"""make run, make up, make status and make down, as a person uses them.

A run that finds a stack uses it, so only the tests of starting and stopping, which come first, pay
for one of their own; the others share one. They cannot run beside somebody's `make up` of the same
tree, and refuse to.
"""

import os
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from support.checkpoint import write_checkpoint

TREE = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
ODD_PROMPT = ('a "quoted" \'prompt\' $(touch made-by-make) `touch made-by-shell` $HOME \\ # end\n'
              'second line')


def environment_of_a_person():
    """Without what `make test` and the tests themselves set: it is the release build that runs,
    also in `make test MODE=asan`."""
    names = ("PROMPT", "NEGATIVE", "SEED", "STEPS", "SIZE", "MODEL", "KAFKA", "OUT", "MODE")
    return {name: value for name, value in os.environ.items()
            if name not in names and not name.startswith(("CRAFTERSE_", "MAKE", "MFLAGS"))}


def make(*arguments, check=True, timeout=120, **environment):
    """Runs make at the top of the tree; returns (exit status, stdout and stderr together)."""
    done = subprocess.run(["make", "--no-print-directory", *arguments], cwd=TREE,
                          env={**environment_of_a_person(), **environment},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, check=False)
    assert not check or done.returncode == 0, done.stdout
    return done.returncode, done.stdout


def services_of(folder):
    """Pids of processes that carry this stack's folder in their environment."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"CRAFTERSE_PORT_FILE={folder}".encode() in (process / "environ").read_bytes():
                pids.append(int(process.name))
        except OSError:
            pass
    return pids


def assert_nothing_runs():
    deadline = time.monotonic() + 5
    while services_of(TREE / "build/run/once.") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert services_of(TREE / "build/run/once.") == []


def size_of_png(path):
    data = Path(path).read_bytes()
    assert data.startswith(PNG)
    return struct.unpack(">II", data[16:24])


@pytest.fixture(scope="module", autouse=True)
def nobody_elses_stack():
    if (TREE / "build/run/stack/settings").exists():
        pytest.fail("a stack of this tree is up: run make down first")


@pytest.fixture(scope="module")
def stack():
    """A stack that make up keeps; yields its URL."""
    _, output = make("up")
    yield re.search(r"answers at (\S+)", output).group(1)
    make("down")
    assert services_of(TREE / "build/run/stack/") == []


def test_run_makes_a_picture_from_nothing_and_leaves_nothing_behind(tmp_path):
    out = tmp_path / "picture.png"
    started = time.monotonic()
    # So many steps that some are made while the event stream is open: past ones are not told again.
    _, output = make("run", "PROMPT=a red potion", "SEED=3", "STEPS=60", f"OUT={out}")
    assert size_of_png(out)[0] >= 64
    assert str(out) in output
    assert re.search(r"seed +3\b", output)
    assert re.search(r"url +http://127\.0\.0\.1:\d+/", output)
    assert re.search(r"time .*build .* s, start .* s", output)
    assert re.search(r"^step \d+ of 60$", output, re.M), "plain lines when stdout is no terminal"
    assert time.monotonic() - started < 60
    assert_nothing_runs()


def test_run_takes_a_single_file_checkpoint(tmp_path):
    model = write_checkpoint(tmp_path / "tiny.safetensors")
    out = tmp_path / "picture.png"
    _, output = make("run", "PROMPT=a red potion", "STEPS=1", "SIZE=64x64", f"MODEL={model}",
                     f"OUT={out}")
    assert size_of_png(out) == (64, 64)
    assert re.search(r"seed +\d", output)
    assert_nothing_runs()


def test_a_service_that_does_not_start_is_named_with_its_last_words(tmp_path):
    model = tmp_path / "broken"
    model.mkdir()
    (model / "model_index.json").write_text("{")
    status, output = make("run", "PROMPT=x", f"MODEL={model}", check=False)
    assert status != 0
    assert "worker ended before it was ready" in output and "model_index.json" in output
    assert_nothing_runs()


def default_interrupt():
    """A test run that was started in the background inherits SIGINT as ignored; a person's make
    does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stops_everything_at_once():
    process = subprocess.Popen(["make", "--no-print-directory", "run", "PROMPT=x", "STEPS=50"],
                               cwd=TREE, env=environment_of_a_person(), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True,
                               preexec_fn=default_interrupt)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=15)
    assert process.returncode != 0
    assert_nothing_runs()


def test_a_prompt_is_never_run_by_make_or_shell(stack, tmp_path):
    out = tmp_path / "picture.png"
    _, output = make("run", "PROMPT=" + ODD_PROMPT, "STEPS=2", f"OUT={out}")
    assert out.exists()
    assert f"Using the stack at {stack}" in output
    for name in ("made-by-make", "made-by-shell"):
        assert not (TREE / name).exists()
    description = out.read_bytes()
    assert b"$(touch made-by-make) `touch made-by-shell` $HOME" in description


def test_the_prompt_may_also_come_from_the_environment(stack, tmp_path):
    out = tmp_path / "picture.png"
    make("run", PROMPT="a $(shell touch made-by-make) key", STEPS="2", OUT=str(out))
    assert out.exists()
    assert not (TREE / "made-by-make").exists()


def test_the_same_seed_gives_the_same_bytes(stack, tmp_path):
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    for out in (first, second):
        make("run", "PROMPT=a blue gem", "SEED=9007199254740991", "STEPS=2", f"OUT={out}")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("settings, words", [
    ({}, "usage: make run PROMPT="),
    ({"PROMPT": "x", "SEED": "minus one"}, "SEED=minus one is not a whole number"),
    ({"PROMPT": "x", "SIZE": "128"}, "SIZE=128 is not WIDTHxHEIGHT"),
    ({"PROMPT": "x", "KAFKA": "rabbit"}, "KAFKA=rabbit"),
    ({"PROMPT": "x", "MODEL": "no/such/model"}, "there is no such file or folder"),
])
def test_what_cannot_be_run_is_refused_with_the_reason(settings, words):
    status, output = make("run", check=False, **settings)
    assert status != 0
    assert words in output


def test_the_gateways_refusal_is_shown(stack):
    status, output = make("run", "PROMPT=x", "SIZE=100x128", check=False)
    assert status != 0
    assert "the gateway refused" in output and "width" in output


def test_status_shows_every_service_and_the_queues(stack):
    _, output = make("status")
    for name in ("devbroker", "router", "worker", "uploader", "gateway"):
        assert re.search(rf"^{name} +\d+ .*(ready|running) +[\d.]+ MiB$", output, re.M), output
    assert re.search(r"^crafterse\.queue\.default\.interactive +\d+$", output, re.M), output
