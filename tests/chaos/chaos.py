#!/usr/bin/python3
"""make chaos: the scenarios of docs/CHAOS.md one by one, then seeded storms. The last line is
"N jobs, N lost, N doubled, N wrong"; the status is 1 when anything was lost, doubled or wrong, or a
scenario failed.

    chaos.py [--seed N] [--seeds N] [--jobs N] [--scenario N,N|none] [--soak] [--keep]
"""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# pylint: disable=wrong-import-position
from chaos import scenarios  # noqa: E402
from chaos.checker import Verdict  # noqa: E402
from chaos.fleet import World  # noqa: E402
from chaos.storm import Storm  # noqa: E402
from support.processes import TREE  # noqa: E402

KEPT = TREE / "build/test/chaos"


def keep(folder, name):
    """What a failure left behind, without Kafka's records."""
    place = KEPT / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("kafka-data", "kafka"))
    return place


def run_scenario(world, scenario, total, arguments):
    """True when it passed."""
    began = time.monotonic()
    print(f"scenario {scenario.number}: {scenario.title}\n    pass: {scenario.criterion}",
          flush=True)
    if scenario.is_scaled and not arguments.soak:
        print(f"    short form: {scenario.scaled}", flush=True)
    run = scenarios.Run(world, arguments.seed, arguments.soak)
    problem = None
    try:
        scenario.run(run)
    except Exception:  # pylint: disable=broad-except
        problem = traceback.format_exc(limit=-4)
    finally:
        problem = run.finish(problem)
    total.add(run.total)
    took = time.monotonic() - began
    for note in run.notes:
        print(f"    {note}")
    if problem is None:
        print(f"ok     scenario {scenario.number} ({run.total.line()}; {run.total.again} drawn "
              f"more than once; {took:.0f} s)", flush=True)
        return True
    print("\n".join(f"    {line}" for line in problem.strip().splitlines()[-40:]))
    place = keep(world.folder, f"scenario-{scenario.number}")
    print(f"FAILED scenario {scenario.number} after {took:.0f} s; logs in {place}; again with: "
          f"make chaos SCENARIO={scenario.number} SEED={arguments.seed}", flush=True)
    return False


def run_storm(world, seed, jobs, total):
    began = time.monotonic()
    print(f"storm with seed {seed}: {jobs} orders", flush=True)
    fleet = world.fleet(counts={"realworker": 1})
    storm = Storm(fleet, seed, jobs)
    try:
        fleet.start()
        verdict = storm.run()
        fleet.stop()
    except Exception:  # pylint: disable=broad-except
        verdict = Verdict()
        verdict.wrong.append("the run itself: " + traceback.format_exc(limit=-4))
        fleet.abandon()
    total.add(verdict)
    for text in verdict.problems()[:40]:
        print(f"    {text}")
    ends = ", ".join(f"{count} {state}" for state, count in sorted(verdict.ends.items()))
    print(f"seed {seed}: {verdict.line()}; {ends}; {verdict.again} drawn more than once; "
          f"{len(storm.faults)} faults, {fleet.supervisor.restarts} restarts, "
          f"{len(fleet.supervisor.gave_up)} services ended by themselves; "
          f"{storm.ledger.refused} refusals, {storm.ledger.unanswered} unanswered, "
          f"{storm.ledger.probes} probes, {verdict.forgotten} cache hits forgotten; "
          f"{time.monotonic() - began:.0f} s", flush=True)
    if verdict.is_clean:
        return True
    place = keep(world.folder, f"seed-{seed}")
    print(f"FAILED seed {seed}; logs in {place}; again with: "
          f"make chaos SEED={seed} JOBS={jobs} SCENARIO=none", flush=True)
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="storms, with seeds that follow")
    parser.add_argument("--jobs", type=int, default=100, help="orders of a storm")
    parser.add_argument("--scenario", default="all", help="numbers, all or none")
    parser.add_argument("--soak", action="store_true", help="the long ones in full")
    arguments = parser.parse_args()
    wanted = scenarios.choose(arguments.scenario)
    total = Verdict()
    failed = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        world = World(Path(folder)).start()
        try:
            for scenario in wanted:
                if not run_scenario(world, scenario, total, arguments):
                    failed.append(f"scenario {scenario.number}")
            for seed in range(arguments.seed, arguments.seed + arguments.seeds):
                if not run_storm(world, seed, arguments.jobs, total):
                    failed.append(f"seed {seed}")
        finally:
            world.stop()
    if failed:
        print(f"failed: {', '.join(failed)}")
    print(total.line())
    return 1 if failed or not total.is_clean else 0


if __name__ == "__main__":
    sys.exit(main())
