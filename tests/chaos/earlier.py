"""The services as an earlier version had them, built from the repository's history: what runs
beside today's while a cluster is brought from one version to the next."""

import os
import subprocess

from support.processes import TREE

# Before attempts that wait, cache modes, partial pictures, second stores and the topic of hits:
# most messages have got fields since, and two topics have come.
COMMIT = "d44bcd5"
PLACE = TREE / "build/earlier" / COMMIT
BINARIES = {"gateway": "build/bin/gateway", "router": "build/bin/router",
            "uploader": "build/bin/uploader", "worker": "build/release/test/bench/zero_worker"}


def has_history():
    return subprocess.run(["git", "cat-file", "-e", f"{COMMIT}^{{commit}}"], cwd=TREE, check=False,
                          stderr=subprocess.DEVNULL).returncode == 0


def build():
    """kind -> the earlier version's program; a minute for the first time."""
    if not PLACE.exists():
        PLACE.mkdir(parents=True)
        archive = subprocess.Popen(["git", "archive", COMMIT], cwd=TREE, stdout=subprocess.PIPE)
        subprocess.run(["tar", "x", "-C", PLACE], stdin=archive.stdout, check=True)
        assert archive.wait() == 0
    with open(PLACE / "build.log", "wb") as log:
        built = subprocess.run(["make", f"-j{os.cpu_count()}", *BINARIES.values()], cwd=PLACE,
                               stdout=log, stderr=log, check=False)
    assert built.returncode == 0, f"the earlier version does not build: {PLACE}/build.log"
    return {kind: PLACE / path for kind, path in BINARIES.items()}
