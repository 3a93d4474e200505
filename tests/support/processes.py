"""Child processes with a log file, that end when the tests do, however those end."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("CRAFTERSE_BUILD", TREE / "build/release"))

# What AddressSanitizer, UndefinedBehaviorSanitizer, ThreadSanitizer and our own ASSERT print.
SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|assertion failed:")


class ProcessError(AssertionError):
    """A process did not do what the tests need; the message holds the end of its log."""


class Process:
    """One child. Its output goes to <folder>/<name>.log; restarts append to it."""

    def __init__(self, name, command, folder, environment=None):
        self.name = name
        self.command = [str(part) for part in command]
        self.folder = Path(folder)
        self.environment = environment or {}
        self.log_path = self.folder / f"{name}.log"
        self.port_path = self.folder / f"{name}.ports"
        self.child = None

    def start(self):
        self.port_path.unlink(missing_ok=True)
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("CRAFTERSE_") and not key.lower().endswith("_proxy")}
        environment.update({key: str(value) for key, value in self.environment.items()})
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command], cwd=TREE, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    @property
    def pid(self):
        return self.child.pid

    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def fail(self, why):
        words = "\n".join(f"  | {line[:400]}" for line in self.log().splitlines()[-15:])
        raise ProcessError(f"{self.name} {why}; the end of its log ({self.log_path}):\n{words}")

    def port(self, kind, timeout=30):
        """The port that the process published under this name."""
        def published():
            if not self.is_running():
                self.fail(f"ended with status {self.child.returncode} before it published {kind}")
            if not self.port_path.exists():
                return None
            found = re.search(rf"^{kind}=(\d+)$", self.port_path.read_text(), re.MULTILINE)
            return int(found.group(1)) if found else None
        return wait_until(published, timeout, lambda: self.fail(f"published no {kind} port"))

    def kill(self):
        """SIGKILL: a crash."""
        if self.is_running():
            self.child.kill()
        if self.child is not None:
            self.child.wait()

    def terminate(self, timeout=30):
        """SIGTERM, then the exit status."""
        if self.is_running():
            self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.fail(f"did not end within {timeout} s of SIGTERM")
            raise

    def check_log(self):
        found = SANITIZER_REPORT.search(self.log())
        if found:
            start = self.log().find(found.group(0))
            raise ProcessError(f"{self.name} ({self.log_path}) reports:\n"
                               f"{self.log()[start:start + 4000]}")

    def memory_mib(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE).group(1)) / 1024


def wait_until(condition, timeout, failed=None, interval=0.02):
    """Calls condition until it gives something true, which is returned."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            break
        time.sleep(interval)
    if failed is not None:
        failed()
    promise = getattr(condition, "__doc__", None) or condition
    raise AssertionError(f"not within {timeout} s: {promise}")
