"""`mpips run`: check, start, show, judge, clean up."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console

from mpips.cli.cleanup import Keeper, Scratch, die_with_parent, sweep
from mpips.cli.launch import command, environment, find, several_hosts
from mpips.cli.output import Output
from mpips.cli.preflight import RunFolder, check_memory, check_roles, newest_in, number_of_ranks
from mpips.cli.progress import Metrics, Progress, summary
from mpips.job import load

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "mpips")
TICK = 0.1
STOP_PATIENCE = 120.0
END_PATIENCE = 5.0
LOST_PATIENCE = 1.0  # where a host has fallen silent mpirun never leaves by itself, nor when it is asked to
ORPHAN_PATIENCE = 3.0
TERMINATE_PATIENCE = 3.0


def run_job(
    path: Path,
    overrides: Sequence[str],
    *,
    ranks: int | None,
    resume: bool,
    hosts: str | None,
    extra: Sequence[str],
    resume_or_start: bool = False,
    restarts: int = 0,
) -> int:
    """Run a job from its file to its end.

    Parameters
    ----------
    path : the job file.
    overrides : ``a.b=value`` each.
    ranks : number of ranks, or None for what the roles need.
    resume : whether to go on from the last checkpoint.
    hosts : ``host:slots,…`` or None.
    extra : more arguments of mpirun.
    resume_or_start : the same if there is one; else the job begins.
    restarts : how often the job is started again, from its newest generation, when it has ended before it was finished.

    Returns
    -------
    int
        0 when `result.json` says "finished", 128 + the signal's number when a signal ended the job, else 1.

    Raises
    ------
    Error
        for whatever is wrong before the job starts.
    """
    console = Console()
    job = load(path, overrides)
    ranks = ranks or number_of_ranks(job)
    view = check_roles(job, ranks)
    launcher = find()
    if not several_hosts(hosts):
        check_memory(job, view)
    resume = resume or (resume_or_start and newest_in(job.run_folder) > 0)
    folder = RunFolder(job, goes_on=resume)
    program = [*PROGRAM, str(path)]
    for item in overrides:
        program += ["--set", item]

    def once(resume: bool) -> tuple[dict[str, Any], list[int]]:
        """Run it once: what came of it, and the signals that came."""
        sweep()
        scratch = Scratch(shared_memory=launcher.places_shared_memory)
        keeper = Keeper(scratch)
        whole = program + ["--resume"] * resume
        line = command(
            launcher, whole, ranks=ranks, hosts=hosts, extra=extra, scratch=scratch, interface=job.network.interface
        )
        try:
            with Progress(console) as progress:
                run = _Run(folder, scratch, progress)
                code = run.follow(line, environment(ranks, hosts, scratch), f"starting {ranks} ranks")
        finally:
            scratch.clear()
            keeper.dismiss()
        return _result(folder.path, code, run.a_rank_died, bool(run.signals)), run.signals

    try:
        result, signals = _again_and_again(once, folder, restarts, resume)
    finally:
        folder.release()
    console.print(summary(result, folder.path))
    if result.get("exit") == "finished":
        return 0
    _complain(f"{path}: {result.get('exit')}: {result.get('reason')}")
    return 128 + signals[0] if signals else 1


def _again_and_again(
    once: Callable[[bool], tuple[dict[str, Any], list[int]]], folder: RunFolder, restarts: int, resume: bool
) -> tuple[dict[str, Any], list[int]]:
    """Run a job until it has finished, or a signal has come, or it has been started again often enough, or ends as it
    did before though it has come no further.

    A launcher that has lost a daemon sends ranks SIGTERM, which they may have time to heed: that nobody has asked for.
    """
    known, before = folder.newest(), None
    for restart in range(1, restarts + 2):
        result, signals = once(resume)
        failure = result.get("reason") if folder.file("result.json").exists() else None
        newest = folder.newest()
        if result["exit"] == "finished" or signals or restart > restarts:
            break
        if failure is not None and (failure, newest) == before:
            _complain("it has come no further than the time before: not started again")
            break
        before = failure, newest
        resume = resume or newest != known
        how = f"going on from generation {newest}" if resume else "from its beginning, there is no generation of it"
        _complain(f"{result['reason']}: started again, {how} (restart {restart} of {restarts})")
        folder.begin_again()
    return result, signals


def _complain(text: str) -> None:
    print(f"mpips: {text}", file=sys.stderr, flush=True)  # noqa: T201


class _Run:
    """A job on its way: its launcher's process, and what the user has asked of it meanwhile."""

    def __init__(self, folder: RunFolder, scratch: Scratch, progress: Progress) -> None:
        self.folder = folder
        self.scratch = scratch
        self.progress = progress
        self.signals: list[int] = []
        self.heeded = 0
        self.over = False
        self.a_rank_died = False
        self.lost_a_host = False
        self.has_ranks = False
        self.deadline = float("inf")

    def follow(self, line: list[str], environment: dict[str, str], stage: str) -> int:
        """Start the job and stay with it until nothing of it is left; mpirun's exit code, which proves nothing.

        The `stage` is said when signals are heeded.
        """
        metrics = Metrics(self.folder.file("metrics.jsonl"))
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.progress.stage(stage)
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            with process, Output(process, self.progress.say) as output:
                try:
                    while process.poll() is None and self._goes_on(process):
                        output.pass_on(TICK)
                        events = list(metrics.new())
                        if any(event.get("event") == "start" for event in events):
                            self.scratch.note_shared_memory()
                        self.lost_a_host |= any(event.get("silent", False) for event in events)
                        self.progress.show_all(events)
                    self._end(process)
                finally:
                    self.scratch.end()
                    process.wait()
                output.pass_on(0.0)
                self.progress.show_all(metrics.new())
                self.a_rank_died = output.a_rank_died
            return process.returncode
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signals.append(number)

    def _goes_on(self, process: subprocess.Popen[bytes]) -> bool:
        """Heed signals and deadlines; False when the job has to be ended by force."""
        now = time.monotonic()
        self.has_ranks |= self.folder.file("ranks.json").exists()  # later the folder may be gone
        if len(self.signals) > self.heeded:
            first = self.heeded == 0
            self.heeded = len(self.signals)
            if not first or not self.has_ranks:
                self.progress.say("ending the job at once")
                return False
            name = signal.Signals(self.signals[0]).name
            self.progress.say(f"{name}: stopping with a checkpoint; once more to end the job at once")
            process.send_signal(signal.SIGUSR1)
            self.deadline = min(self.deadline, now + STOP_PATIENCE)
        if not self.over and self.folder.file("result.json").exists():
            self.over, self.deadline = True, now + (LOST_PATIENCE if self.lost_a_host else END_PATIENCE)
        if now > self.deadline:
            if not self.folder.file("result.json").exists():
                self.progress.say(f"the job has not stopped for {STOP_PATIENCE:.0f} s: ending it by force")
            return False
        return True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End what is left: by mpirun, which reaches other hosts, as long as there is one that listens."""
        if process.poll() is None:
            if self.lost_a_host:
                return
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERMINATE_PATIENCE)
            return
        # mpirun may leave before ranks that are on their way out
        killed = self.scratch.end(ORPHAN_PATIENCE)
        if killed:
            self.progress.say(f"mpirun was gone; ended {len(killed)} processes that it left")


def _ended(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _result(folder: Path, code: int, a_rank_died: bool, signalled: bool) -> dict[str, Any]:
    """What came of the job: `result.json`, or what can be said when there is none."""
    try:
        return msgspec.json.decode((folder / "result.json").read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        exit_, reason = "failed", f"the job left no result (mpirun: {_ended(code)})"
        if a_rank_died:
            reason = f"a rank died, and without ULFM that ends the job (mpirun: {_ended(code)})"
        if signalled:
            exit_, reason = "interrupted", "the job was ended before it had a result"
        if any(folder.glob("generation-*.h5")):
            reason += "; go on from its last checkpoint by --resume"
        return {"exit": exit_, "reason": reason}
