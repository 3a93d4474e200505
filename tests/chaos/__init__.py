"""Faults against a whole cluster: what docs/CHAOS.md describes."""
