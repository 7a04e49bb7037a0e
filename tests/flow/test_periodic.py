"""Nothing stands unknown, parked or late in silence: beat asks a worker to look, and the worker says so."""

from __future__ import annotations

from tasks import app, watch
from tests.flow.system import System


def test_all_that_beat_asks_for_goes_into_a_lane_that_exists_and_does_not_pile_up() -> None:
    entries = app.conf.beat_schedule.values()
    assert {watch.name, "inbox"} <= {entry["task"] for entry in entries} <= set(app.tasks)
    for entry in entries:
        assert entry["options"]["queue"] in app.amqp.queues
        assert entry["options"]["expires"] <= entry["schedule"]


def test_a_parked_effect_is_told_by_the_worker_that_serves_the_periodic_lane(system: System) -> None:
    effect_id = system.charge()
    system.sql("update effects set state = 'parked' where id = %s returning id", effect_id)
    system.sql(
        "update outbox set road = 'parked', parked_at = now(), parked_reason = 'attempt_budget'"
        " where effect_id = %s returning effect_id",
        effect_id,
    )
    worker = system.ready(system.worker(lanes="periodic"))
    caller = system.start("call", ["celery", "-A", "tasks", "call", watch.name])
    caller.expected_to_run = False
    system.until(lambda: worker.lines("effects_parked"), "the worker says that an effect is parked")
    assert worker.lines("effects_parked")[0]["count"] == 1
