"""The mpirun line: what is in it, when."""

import os
from pathlib import Path

import pytest

from mpips.cli import launch
from mpips.cli.cleanup import Scratch
from mpips.cli.launch import Launcher, LauncherError, command, environment, find

OPEN_MPI = Launcher(Path("/opt/bin/mpirun"), "Open MPI", "5.0.11", ulfm=True)
SCRATCH = Scratch("mpips-1-test")


@pytest.fixture(autouse=True)
def four_cores_and_no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 4)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMP_", "NUMBA_NUM"))]:
        monkeypatch.delenv(name)


def line(
    launcher: Launcher = OPEN_MPI,
    ranks: int = 4,
    hosts: str | None = None,
    extra: tuple[str, ...] = (),
    interface: str | None = None,
) -> str:
    program = ["python", "-m", "mpips"]
    return " ".join(
        command(launcher, program, ranks=ranks, hosts=hosts, extra=extra, scratch=SCRATCH, interface=interface)
    )


def test_ulfm_and_tested_components_are_asked_for() -> None:
    assert line().startswith("/opt/bin/mpirun -n 4 --with-ft ulfm --mca pml ob1 --mca btl self,sm,tcp --mca osc ^ucx")
    assert line().endswith(" python -m mpips")


def test_open_mpi_without_ulfm_is_not_asked_for_it() -> None:
    assert "--with-ft" not in line(OPEN_MPI._replace(ulfm=False))


def test_mpich_gets_none_of_open_mpis_options() -> None:
    mpich = Launcher(Path("/opt/bin/mpiexec"), "MPICH", "4.3.0", ulfm=False)
    assert line(mpich) == "/opt/bin/mpiexec -n 4 python -m mpips"


def test_cores_are_oversubscribed_only_when_ranks_are_more() -> None:
    assert "oversubscribe" not in line(ranks=4)
    assert "--map-by slot:oversubscribe" in line(ranks=5)
    assert "oversubscribe" not in line(ranks=8, hosts="a:4,b:4")
    assert "oversubscribe" in line(ranks=9, hosts="a:4,b:4")


def test_slots_are_those_of_the_batch_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "16")
    assert "oversubscribe" not in line(ranks=16)
    assert "oversubscribe" in line(ranks=17)


def test_the_launcher_waits_for_silent_hosts_when_there_are_several() -> None:
    assert "state_base_recoverable" not in line()
    assert "--prtemca state_base_recoverable 1" in line(hosts="a:4,b:4")


def test_mpi_takes_the_network_that_the_job_file_names() -> None:
    assert "if_include" not in line(hosts="a:4,b:4")
    assert "--mca btl_tcp_if_include ib0,10.1.0.0/16" in line(hosts="a:4,b:4", interface="ib0,10.1.0.0/16")


def test_shared_memory_lies_in_the_runs_own_folder_when_there_is_one_host() -> None:
    assert f"--mca btl_sm_backing_directory {SCRATCH.shared_memory}" in line()
    assert "backing_directory" not in line(hosts="a:4,b:4")


def test_arguments_of_the_user_come_last() -> None:
    assert line(extra=("--report-bindings",)).endswith(" --report-bindings python -m mpips")


def test_threads_of_all_ranks_together_fill_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(2, None, SCRATCH)["NUMBA_NUM_THREADS"] == "2"
    assert environment(8, None, SCRATCH)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(8, None, SCRATCH)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("user", [0, 1000])
def test_root_is_permitted_only_to_root(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    for name in launch.AS_ROOT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    names = environment(2, None, SCRATCH)
    assert [name in names for name in launch.AS_ROOT] == [user == 0] * 4


@pytest.mark.every_mpi
def test_launcher_of_this_environment_is_found() -> None:
    launcher = find()
    assert launcher.path.exists()
    assert launcher.library != "MPI"


@pytest.mark.parametrize(
    ("said", "library", "version"),
    [
        ("mpirun (Open MPI) 4.1.4", "Open MPI", "4.1.4"),
        ("HYDRA build details:\n    Version:                                 4.3.1\n", "MPICH", "4.3.1"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.13 Build 20240701", "Intel MPI", "2021.13"),
        ("something else", "MPI", "unknown"),
    ],
)
def test_libraries_are_told_apart(monkeypatch: pytest.MonkeyPatch, said: str, library: str, version: str) -> None:
    monkeypatch.setattr(launch, "_output", lambda *_: said)
    launcher = find()
    assert (launcher.library, launcher.version, launcher.ulfm) == (library, version, False)


def test_intel_mpi_is_started_without_its_script_which_passes_no_signal_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("mpirun", "mpiexec.hydra"):
        (tmp_path / "bin" / name).touch()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setattr(launch, "_output", lambda *_: "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 1")
    assert find().path == tmp_path / "bin" / "mpiexec.hydra"
    assert "I_MPI_HYDRA_BOOTSTRAP" not in environment(2, None, SCRATCH)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert environment(2, None, SCRATCH)["I_MPI_HYDRA_BOOTSTRAP"] == "slurm"


def test_machine_without_mpirun_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LauncherError, match=r"pip install 'mpips\[mpi\]'"):
        find()
