"""wrk, Debian's load generator, and what the load cost those that bore it."""

import json
import os
import subprocess
from pathlib import Path

CONNECTIONS = 32

WRK_SCRIPT = """
wrk.method, wrk.body = "%s", [[%s]]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
%s
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format('{"requests": %%d, "seconds": %%.6f, "failed": %%d, "p50_ms": %%.3f, ' ..
        '"p99_ms": %%.3f}\\n', summary.requests, summary.duration / 1e6,
        e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def family(pid):
    """pid and its children."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in listed)]


def cpu_seconds(pid, thread=""):
    """What all threads of the process and its children have used, to the nanosecond, or those whose
    names begin with `thread`."""
    total = 0
    for member in family(pid):
        for task in Path(f"/proc/{member}/task").iterdir():
            if (task / "comm").read_text().startswith(thread):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def hold_on_processor(pid, processor):
    for member in family(pid):
        subprocess.run(["taskset", "-apc", str(processor), str(member)], check=True,
                       stdout=subprocess.DEVNULL)


class Wrk:
    """One request, sent over and over by `connections` clients that each wait for their answer."""

    def __init__(self, folder, name, method, body, key, headers=""):
        self.script = Path(folder) / f"{name}.lua"
        self.script.write_text(WRK_SCRIPT % (method, body, key, headers))

    def run(self, url, seconds, connections=CONNECTIONS):
        done = subprocess.run(
            ["taskset", "-c", str(os.cpu_count() - 1), "wrk", "-t1", f"-c{connections}",
             f"-d{seconds}", "--timeout", "30", "-s", self.script, url],
            capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["failed"] == 0 and result["requests"] > 0, done.stdout
        return result
