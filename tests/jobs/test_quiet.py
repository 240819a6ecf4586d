"""What a user of `mpips run` sees of a rank that dies without harm: what mpips says of it, and nothing of MPI's own."""

import os
import re
import signal

import pytest

from tests.jobs.conftest import FOREVER, Start
from tests.jobs.started import Started

OURS = re.compile(r"(starting|started|data server|epoch|checkpoint|SIGINT|stopping|lost rank|recovery|mpips)\b")
SUMMARY = re.compile(r"(exit|recoveries|auc|logloss|nonzeros|seconds|examples/s|roles|run folder|\w+ sent) ")


@pytest.mark.replacement
@pytest.mark.parametrize("nodes", ["one node", "nodes of their own"])
def test_dead_spares_are_told_without_a_word_of_mpi(run: Start, nodes: str) -> None:
    apart = f"fabric.separate_nodes={str(nodes != 'one node').lower()}"
    job: Started = run(FOREVER, "roles.spares=2", apart)
    job.until_training(1)
    spares = [rank["pid"] for rank in job.ranks() if rank["role"] == "spare"]
    for pid in spares:
        os.kill(pid, signal.SIGKILL)
    job.until(lambda: len(job.events("lost")) == 2, "notice of the spares' deaths")
    job.until_training(len(job.events("epoch")) + 3)
    os.kill(job.process.pid, signal.SIGINT)
    assert job.end() == 130, job.said
    whole = [line for line in job.output.splitlines() if re.match(r"recovery \d+: .* whole after", line)]
    assert sorted(line.split(" · ")[0].split(": ")[1] for line in whole) == ["spare 4", "spare 5"]
    said = [*job.output.splitlines(), *job.errors.splitlines()]
    assert [line for line in said if not OURS.match(line) and not SUMMARY.match(line)] == []
