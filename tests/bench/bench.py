#!/usr/bin/python3
"""Runs the benches, prints a table and writes build/bench.json.

    tests/bench/bench.py [engine|pipeline|cache|all]

build/bench.json is a list of {"name", "value", "unit", "reference", "target", "holds"}: reference
is the ceiling or peer that was measured in the same run (null = none), target what is promised
(null = only told), holds whether the promise is kept. Rows of benches that do not run stay.
The status is 1 when a promise is broken.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TREE / "tests"), str(TREE / "tests/bench")]

BUILD = Path(os.environ.get("CRAFTERSE_BUILD", TREE / "build/release"))
RESULTS = TREE / "build/bench.json"


def bench_engine():
    model = next(folder for folder in (TREE / "worker/models/demo", TREE / "tests/golden/tiny-sdxl")
                 if (folder / "model_index.json").exists())
    done = subprocess.run([BUILD / "test/bench/bench_engine", model], stdout=subprocess.PIPE,
                          text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def bench_pipeline():
    import bench_pipeline as pipeline
    return pipeline.measure()


def bench_cache():
    import bench_cache as cache
    return cache.measure()


BENCHES = {"engine": bench_engine, "pipeline": bench_pipeline, "cache": bench_cache}


def number(value):
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def print_table(rows):
    width = max(len(row["name"]) for row in rows)
    print(f"{'':{width}}  {'value':>10}  {'unit':<10}  {'reference':>10}  {'target':>10}")
    for row in rows:
        verdict = {True: "holds", False: "BROKEN", None: ""}[row["holds"]]
        print(f"{row['name']:{width}}  {number(row['value']):>10}  {row['unit']:<10}  "
              f"{number(row['reference']):>10}  {number(row['target']):>10}  {verdict}")


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else "all"
    names = list(BENCHES) if wanted == "all" else [wanted]
    if any(name not in BENCHES for name in names):
        print(__doc__)
        return 2
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = []
    for name in names:
        kept = [row for row in kept if not row["name"].startswith(f"{name}.")]
        rows += BENCHES[name]()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept + rows) + "\n]\n")
    print_table(rows)
    broken = [row["name"] for row in rows if row["holds"] is False]
    print(f"{len(rows)} rows, {len(broken)} promises broken; written to {RESULTS}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
