#!/usr/bin/python3
"""Prints the commands that make the users and rights of components/strimzi/users.yaml on a Kafka
without Strimzi. A user's password is read from PASSWORDS/<user> when the commands run.

    deploy/k8s/users.py PASSWORDS --bootstrap-server HOST:PORT --command-config FILE | bash -e
"""

import itertools
import shlex
import sys
from pathlib import Path

import yaml

USERS = Path(__file__).parent / "components/strimzi/users.yaml"


def users():
    """(name, rights) of each KafkaUser; a right is (resource type, name, pattern, operations)."""
    for user in yaml.safe_load_all(USERS.read_text()):
        yield user["metadata"]["name"], [
            (acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"],
             tuple(acl["operations"])) for acl in user["spec"]["authorization"]["acls"]]


def commands(passwords, options):
    """One for each user, one for all its resources that have the same rights."""
    options = shlex.join(options)
    for name, rights in users():
        yield (f"kafka-configs.sh {options} --alter --entity-type users --entity-name {name} "
               f'--add-config "SCRAM-SHA-512=[password=$(cat {shlex.quote(passwords)}/{name})]"')

        def likeness(right):
            kind, _, pattern, operations = right
            return kind, pattern, sorted(operations)
        for (kind, pattern, operations), same in itertools.groupby(
                sorted(rights, key=likeness), likeness):
            words = [f"--{kind} {resource}" for _, resource, _, _ in same]
            words += [f"--operation {operation}" for operation in operations]
            pattern = {"prefix": "prefixed"}.get(pattern, pattern)
            yield (f"kafka-acls.sh {options} --add --allow-principal User:{name} "
                   f"--resource-pattern-type {pattern} {' '.join(words)}")


def main():
    if len(sys.argv) < 3:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    for command in commands(sys.argv[1], sys.argv[2:]):
        print(command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
