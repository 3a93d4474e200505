"""The checker itself: services that break one rule on purpose (MODE=fault, common/base/fault.h) are
caught, and the same acts with services that keep it are not."""

import time

from chaos.checker import check
from chaos.clients import wait_ends
from chaos.fleet import SESSION_TIMEOUT_S
from chaos.scenarios.crashes import wait_ended
from chaos.scenarios.scenario import Desk, scenario
from support.processes import wait_until

ONE_EACH = {"router": 1, "worker": 1, "uploader": 1, "gateway": 1}


def kill_in_the_middle(run, broken):
    """A worker dies with a job in hand; it is started again."""
    fleet = run.fleet(faulty=True, broken=broken, counts=ONE_EACH, step_time="100ms")
    desk = Desk(run, fleet)
    order = desk.order(steps=20)
    desk.wait_for(order, "running")
    time.sleep(0.5)
    fleet.kill("worker1")
    desk.order(steps=1)
    return desk


def zombie_with_one_attempt(run, broken):
    """A worker stands still; another one finds that the job's only attempt was made, and fails it;
    then the first one goes on and has its picture."""
    fleet = run.fleet(faulty=True, broken=broken, counts=ONE_EACH, step_time="100ms",
                      service_settings={"worker": {"JOB_ATTEMPTS_MAX": "1"}})
    desk = Desk(run, fleet)
    order = desk.order(steps=15)
    desk.wait_for(order, "running")
    fleet.signal("worker1", 19)
    fleet.supervisor.hold(fleet.add("worker2").start().name)
    wait_ended(desk, [order], 30)
    assert set(order.ends) == {"failed"}, order.ends
    fleet.signal("worker1", 18)
    wait_until(lambda: any(w in fleet.worker1.log() for w in ("job rendered", "job skipped")), 20)
    time.sleep(1)
    desk.look(order)
    return desk


def verdict_of(desk, seconds, poisoned):
    wait_ends(desk.fleet, desk.ledger, seconds)
    return check(desk.fleet, desk.ledger, poisoned)


def must_pass(run, act, poisoned):
    desk = act(run, broken=None)
    verdict = verdict_of(desk, 30, poisoned)
    run.total.add(verdict)
    assert verdict.is_clean, "with services that keep the rule:\n" + "\n".join(verdict.problems())
    run.stop(desk.fleet)


def must_catch(run, act, rule, kind, poisoned):
    """kind: the list of the verdict that must name the job."""
    desk = act(run, broken=rule)
    verdict = verdict_of(desk, 3 * SESSION_TIMEOUT_S, poisoned)
    caught = getattr(verdict, kind)
    run.note(f"without the rule, the same acts give: {verdict.line()}: {caught[:1]}")
    desk.fleet.abandon()
    run.fleets.remove(desk.fleet)
    assert caught, f"the checker did not notice: {verdict.problems()}"


@scenario(25, "the checker catches services that commit before they acknowledge",
          "a worker killed with a job in hand: lost, and found to be")
def commit_before_ack(run, also_with_the_rule=True):
    if also_with_the_rule:
        must_pass(run, kill_in_the_middle, ())
    must_catch(run, kill_in_the_middle, "commit_before_ack", "lost", ())


@scenario(26, "the checker catches services that skip the dedup",
          "a job that failed and then succeeds: seen twice, and found to be")
def skip_dedup(run, also_with_the_rule=True):
    if also_with_the_rule:
        must_pass(run, zombie_with_one_attempt, ["attempts_exhausted"])
    must_catch(run, zombie_with_one_attempt, "skip_dedup", "doubled", ["attempts_exhausted"])
