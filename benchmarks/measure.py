"""What a round costs: CPU of every process but the provider, commits and WAL of the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import psycopg


@dataclass(frozen=True)
class Cost:
    """Totals since a start: CPU seconds (user and system), commits, WAL bytes."""

    cpu: float
    commits: int
    wal: int

    def since(self, before: Cost) -> Cost:
        """The difference."""
        return Cost(self.cpu - before.cpu, self.commits - before.commits, self.wal - before.wal)


def cost(connection: psycopg.Connection, pids: Sequence[int]) -> Cost:
    """Read the counters of the processes `pids` with all their descendants, of this one, and of the database."""
    row = connection.execute(
        "select xact_commit, pg_current_wal_insert_lsn() - '0/0' from pg_stat_database"
        " where datname = current_database()"
    ).fetchone()
    assert row is not None
    return Cost(sum(map(_cpu, _tree(pids))), row[0], int(row[1]))


def _tree(pids: Sequence[int]) -> list[psutil.Process]:
    processes = [psutil.Process(), *[psutil.Process(pid) for pid in pids]]
    return processes + [child for process in processes[1:] for child in process.children(recursive=True)]


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # The children's columns count what has ended meanwhile: Postgres forks a backend per connection.
    return float(times.user + times.system + times.children_user + times.children_system)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
