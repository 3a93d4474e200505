"""Scenarios 1, 3, 4, 8 and 12 of docs/CHAOS.md in a form of seconds, on one broker; `make chaos`
has all of them, on three."""

import pytest

from chaos.fleet import World
from chaos.scenarios import checker_proof, crashes, kafka
from chaos.scenarios.scenario import Run
from support import nodes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    nodes.check_kafka_installed()
    world = World(tmp_path_factory.mktemp("chaos"), brokers=1).start()
    yield world
    world.stop()


@pytest.fixture
def run(world):
    """Ends with all services asked to stop, and a failure when one does not end cleanly."""
    run = Run(world)
    yield run
    problem = run.finish(None)
    print("\n".join(run.notes))
    assert problem is None, problem


def test_killed_at_the_steps_that_matter_every_job_still_ends_once(run):
    crashes.kill_at_each_point(run, crashes.CRASH_POINTS_SHORT)


def test_a_worker_that_comes_back_from_the_dead_changes_nothing(run):
    crashes.zombie(run)


def test_what_was_drawn_to_its_end_is_not_failed_for_a_lost_commit(run):
    crashes.rendered_and_not_committed(run)


def test_sigterm_lets_a_worker_finish_its_job(run):
    crashes.drain(run)


def test_a_produce_request_whose_answer_is_lost_is_written_once(run):
    kafka.answer_cut(run, rounds=2)


def test_a_service_whose_kafka_client_fails_for_good_ends_cleanly(run):
    crashes.client_fails(run, crashes.FATAL_POINTS[-1:])


def test_the_pictures_of_a_job_stay_in_order_through_an_outage(run):
    kafka.pictures_in_order(run)


def test_poison_goes_to_deadletter_and_its_neighbours_are_drawn(run):
    crashes.poison(run, attempts=2)


def test_the_checker_notices_commits_before_the_acknowledgement(run):
    checker_proof.commit_before_ack(run, also_with_the_rule=False)


def test_the_checker_notices_that_dedup_is_skipped(run):
    checker_proof.skip_dedup(run, also_with_the_rule=False)
