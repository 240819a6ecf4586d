"""Jobs over several hosts: what comes of them is what comes of one, and the loss of a host is made up for."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from tests.hosts.conftest import Hosts
from tests.jobs.conftest import FOREVER, TRAIN_ROWS
from tests.jobs.started import RANK, Started, command_of, environment_of, mpips_run, parent_of

Run = Callable[..., Started]
ROLES = "roles.servers=2", "roles.data_servers=1", "roles.workers=2", "roles.spares=2"
WATCH = "network.heartbeat=0.3", "network.timeout=1.0"
SOON = 2.5  # seconds from the loss of a host to the first push that its successor acknowledges


def weights(run: Path) -> tuple[np.ndarray, ...]:
    """Keys, values and state, by key."""
    with Generation(generations(run)[0]) as generation:
        blocks = list(generation.sparse("w"))
    keys, values, state = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    order = np.argsort(keys)
    return keys[order], values[order], state[order]


def test_the_weights_are_those_of_one_host_to_the_last_bit(run: Run, tmp_path: Path) -> None:
    found = []
    for over, roles in ((4, ROLES), (1, ())):
        job = run("consistency.delay=0", *roles, f"checkpoint.folder={tmp_path}/over-{over}", over=over)
        job.run = tmp_path / f"over-{over}"
        assert job.end() == 0, job.said
        assert job.result()["examples"] == 2 * TRAIN_ROWS
        assert len({rank["host"] for rank in job.ranks()}) == over
        found.append(weights(job.run))
    for several, one in zip(*found, strict=True):
        np.testing.assert_array_equal(several, one)


def stop(job: Started) -> None:
    """Ask `mpips run` to stop the job."""
    those = [pid for pid in job.processes() if re.match(r"\S*python\S* \S*mpips run ", command_of(pid))]
    os.kill(next(pid for pid in those if parent_of(pid) not in those), signal.SIGTERM)  # its child cleans up after it


def go_on_without(hosts: Hosts, job: Started, lost: str, power: bool) -> None:
    """Lose a host while the job trains: it goes on soon, without what was there, which leaves by itself."""
    job.until_training()
    ranks = [pid for pid in job.processes() if any(entry.startswith(RANK) for entry in environment_of(pid))]
    there = [pid for pid in ranks if hosts.of(pid) == lost]
    gone = sorted(rank["rank"] for rank in job.ranks() if rank["host"] == lost)
    assert there
    assert gone
    at = time.time()
    hosts.pull_the_cable(lost)
    if power:
        hosts.cut_the_power(lost)

    def whole() -> bool:
        stages = job.events("recovery")
        done = {event["rank"] for event in stages if event["stage"] == "whole"}
        return done >= {event["rank"] for event in stages} and len(job.events("lost")) >= len(gone)

    job.until(whole, "all that was lost is made up for")
    assert sorted(event["rank"] for event in job.events("lost")) == gone
    acknowledged = [event["time"] for event in job.events("recovery") if event["stage"] == "acknowledged"]
    assert max(acknowledged) - at < SOON
    epochs = len(job.events("epoch"))
    job.until(lambda: len(job.events("epoch")) > epochs + 1, "two epochs more")
    job.until(lambda: not set(there) & set(job.processes()), f"the end of the ranks on {lost}")


@pytest.mark.parametrize("power", [True, False], ids=["power", "cable"])
def test_a_host_that_falls_silent_is_made_up_for_and_leaves(hosts: Hosts, run: Run, power: bool) -> None:
    job = run(*ROLES, *WATCH, FOREVER)
    go_on_without(hosts, job, "h3", power)
    stop(job)
    job.end()
    assert job.result()["exit"] == "interrupted"


def test_a_job_whose_launcher_is_cut_off_from_its_daemon_goes_on_from_its_newest_generation(
    hosts: Hosts, run: Run
) -> None:
    job = run(*ROLES, FOREVER, "checkpoint.every=0.3", "--restarts=1")
    job.until(lambda: len(job.events("checkpoint")) >= 2, "generations")
    daemon = next(
        pid for pid in job.processes() if hosts.of(pid) == "h3" and Path(f"/proc/{pid}/comm").read_text() == "prted\n"
    )
    newest = job.events("checkpoint")[-1]["generation"]
    at = time.time()
    os.kill(daemon, signal.SIGKILL)
    job.until(lambda: (job.run / "metrics.1.jsonl").exists() and job.events("epoch"), "training again")
    assert job.events("epoch")[0]["time"] - at < 15
    assert job.events("restored")[0]["generation"] >= newest
    stop(job)
    job.end()
    assert json.loads((job.run / "result.json").read_text())["exit"] == "interrupted"


def test_a_new_process_takes_the_place_of_a_rank_on_another_host(run: Run) -> None:
    job = run("roles.servers=3", "roles.data_servers=1", "roles.workers=3", "roles.spares=0", FOREVER)
    job.until_training()
    asked = [mpips_run()[0], "scale", str(job.run), "spares=+1"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    new = max(job.ranks(), key=lambda rank: rank["rank"])
    old = next(rank for rank in job.ranks() if rank["role"] == "server" and rank["host"] != new["host"])
    [pid] = [pid for pid in job.processes() if f"OMPI_COMM_WORLD_RANK={old['rank']}".encode() in environment_of(pid)]
    os.kill(pid, signal.SIGKILL)
    job.until(lambda: [event["stage"] for event in job.events("recovery")][-1:] == ["whole"], "its successor")
    assert {rank["rank"]: rank["role"] for rank in job.ranks()}[new["rank"]] == "server"
    epochs = len(job.events("epoch"))
    job.until(lambda: len(job.events("epoch")) > epochs + 1, "two epochs more")
    stop(job)
    job.end()
    assert job.result()["exit"] == "interrupted"
