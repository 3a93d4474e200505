#!/usr/bin/python3
"""Runs the benches, prints a table and writes build/bench.json.

    tests/bench/bench.py [engine|layers|pipeline|throughput|gateway|cache|all]
    tests/bench/bench.py table [BENCH]     the last run's rows in Markdown

engine: the rows of docs/SPEED.md, on models of real size (BENCH_ROWS=WORD: those with WORD in their
names). layers: what single layers cost on one thread. pipeline: orders through all services, and
throughput: as many of them as there can be, and memory after 100,000 (BENCH_JOBS=N).
gateway: cache hits, event streams, slow clients. cache: a picture that is asked for again.

build/bench.json is a list of {"name", "value", "unit", "reference", "target", "holds"}: reference
is the ceiling or peer that was measured in the same run (null = none), target what is promised
(null = only told), holds whether the promise is kept; value is null where there is no figure, which
breaks the promise. Rows of benches that do not run stay. The status is 1 when a promise is broken.
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
    from engine import rows
    return rows.measure()


def bench_layers():
    done = subprocess.run([BUILD / "test/bench/bench_layers"], stdout=subprocess.PIPE, text=True,
                          check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def bench_pipeline():
    import bench_pipeline as pipeline
    return pipeline.measure()


def bench_throughput():
    import bench_throughput as throughput
    return throughput.measure()


def bench_gateway():
    import bench_gateway as gateway
    return gateway.measure()


def bench_cache():
    import bench_cache as cache
    return cache.measure()


BENCHES = {"engine": bench_engine, "layers": bench_layers, "pipeline": bench_pipeline,
           "throughput": bench_throughput, "gateway": bench_gateway, "cache": bench_cache}


def bench_of(row):
    return row.get("bench", row["name"].split(".")[0])


def title(row):
    return f"{row['name']}: {row['part']}" if row.get("part") else row["name"]


def number(value):
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def target(row):
    relation = {True: ">= ", False: "<= ", None: ""}[row.get("at_least")]
    return relation + number(row["target"])


def print_table(rows):
    width = max(len(title(row)) for row in rows)
    print(f"{'':{width}}  {'value':>10}  {'unit':<7}  {'target':>8}  {'':6}  {'reference':>10}")
    for row in rows:
        verdict = {True: "holds", False: "BROKEN", None: ""}[row["holds"]]
        print(f"{title(row):{width}}  {number(row['value']):>10}  {row['unit']:<7}  "
              f"{target(row):>8}  {verdict:6}  {number(row['reference']):>10}  "
              f"{row.get('reference_is', '')}")


def print_markdown(rows):
    """Of the last run, for docs/SPEED.md."""
    print("| row | target | measured | ceiling of the same run |\n|---|---|---|---|")
    for row in rows:
        value = f"{number(row['value'])} {row['unit']}" if row["value"] is not None else "no figure"
        verdict = "" if row["holds"] is not False else ": **not reached**"
        reference = f"{number(row['reference'])}: " if row["reference"] is not None else ""
        print(f"| `{row['name']}`{', ' + row['part'] if row.get('part') else ''} | {target(row)} | "
              f"{value}{verdict} | {reference}{row.get('reference_is', '')} |")


def main():
    if sys.argv[1:2] == ["table"]:
        names = sys.argv[2:] or ["engine"]
        print_markdown([row for row in json.loads(RESULTS.read_text()) if bench_of(row) in names])
        return 0
    wanted = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else "all"
    names = {"all": list(BENCHES), "pipeline": ["pipeline", "throughput"]}.get(wanted, [wanted])
    if any(name not in BENCHES for name in names):
        print(__doc__)
        return 2
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = []
    for name in names:
        kept = [row for row in kept if bench_of(row) != name]
        rows += BENCHES[name]()
    if not rows:
        print("no such row")
        return 2
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept + rows) + "\n]\n")
    print_table(rows)
    broken = [title(row) for row in rows if row["holds"] is False]
    print(f"{len(rows)} rows, {len(broken)} promises broken; written to {RESULTS}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
