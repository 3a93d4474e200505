"""The scenarios of docs/CHAOS.md, by number."""

from chaos.scenarios.scenario import SCENARIOS, Run


def load():
    # pylint: disable=import-outside-toplevel,unused-import
    from chaos.scenarios import (  # noqa: F401
        checker_proof, crashes, jobs, kafka, machine, stores)
    return [SCENARIOS[number] for number in sorted(SCENARIOS)]


def choose(text):
    """"all", "none" or "1,3,12"."""
    everything = load()
    if text in ("", "all"):
        return everything
    if text == "none":
        return []
    numbers = [int(part) for part in text.split(",")]
    unknown = [number for number in numbers if number not in SCENARIOS]
    if unknown:
        raise SystemExit(f"no scenario {unknown}: there are {sorted(SCENARIOS)}")
    return [SCENARIOS[number] for number in numbers]


__all__ = ["Run", "choose", "load"]
