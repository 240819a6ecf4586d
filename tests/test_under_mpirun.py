"""What plain pytest starts under mpirun itself.

Not in tests/mpi: pytest-mpi takes every test in a folder of that name for one that runs under mpirun.
"""

import sys

import pytest

from mpips.cli.launch import find
from tests.mpirun import mpirun

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(150), pytest.mark.every_mpi]


def test_the_mpi_tests_pass_on_four_ranks():
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--color=no",
        "--with-mpi",
        "-x",
        "-p",
        "no:cacheprovider",
        "-o",
        "timeout=40",
        "tests/mpi",
    ]
    ended = mpirun(program, 4, deadline=110)
    assert ended.code == 0, ended.output
    assert ended.output.count(" passed") == 4, ended.output
    assert " failed" not in ended.output
    assert (ended.processes, ended.files) == ([], [])


@pytest.mark.parametrize(
    ("rank", "role", "place"),
    [(0, "scheduler", "one node"), (1, "server", "nodes of their own"), (2, "worker", "one node")],
)
def test_a_killed_rank_ends_the_job_within_seconds_and_nothing_is_left(rank, role, place, tmp_path):
    killed = tmp_path / "killed"
    ended = mpirun([sys.executable, "tests/mpi/lose_a_rank.py", str(rank), "1", place, str(killed)], 4, deadline=60)
    assert ended.code != 0
    assert ended.time - float(killed.read_text()) < 10
    if rank > 0 and find().ulfm:  # else the launcher ends the others before they can say it
        assert f"rank {rank} ({role} on " in ended.output
    assert "Traceback" not in ended.output, ended.output
    assert (ended.processes, ended.files) == ([], [])


def test_a_rank_that_dies_before_all_have_met_ends_the_job_and_nothing_is_left():
    ended = mpirun([sys.executable, "tests/mpi/lose_a_rank_early.py"], 4, deadline=60)
    assert ended.code != 0
    if find().ulfm:
        assert "mpips: failed: MPI did not start" in ended.output
    assert "Traceback" not in ended.output, ended.output
    assert (ended.processes, ended.files) == ([], [])
