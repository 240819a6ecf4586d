"""The job file (`inputs/*.toml`): read with every mistake in it at once."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mpips.job.checks import misfits
from mpips.job.sections import GroupSection, MemorySection, Sections, TableSection
from mpips.job.source import JobFileError, JobSource
from mpips.plan import Memory, Scale
from mpips.quantities import from_text
from mpips.schema import mistakes

__all__ = ["GroupSection", "Job", "JobFileError", "MemorySection", "TableSection", "load"]


class Job(Sections, frozen=True, kw_only=True):
    """A job file that was read and found good, with the overrides of the command line in it.

    Parameters
    ----------
    path : Path
        The job file.
    text : str
        Its text, as it stands in the file.
    overrides : tuple of str
        What ``--set`` changed, as ``a.b=value``.
    """

    path: Path
    text: str
    overrides: tuple[str, ...] = ()

    @property
    def base(self) -> Path:
        """The folder of the job file; paths of data and Python files in it are relative to this."""
        return self.path.resolve().parent

    @property
    def arena_sizes(self) -> Memory:
        """The sizes of arenas that the job file chooses."""
        return Memory(server=self.memory.server, data_server=self.memory.data_server, worker=self.memory.worker)

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The changes of size that the job file plans."""
        return tuple(Scale(entry.at, entry.epoch, entry.servers, entry.workers) for entry in self.plan)

    @property
    def team(self) -> int:
        """Workers that have a copy of the model together."""
        return self.algorithm.neural.partitions if self.algorithm.neural else 1

    @property
    def run_folder(self) -> Path:
        """Where the results and the checkpoint go, absolute; a relative one starts from the current folder."""
        return Path(self.checkpoint.folder or Path("checkpoints", self.path.stem)).absolute()


def load(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file, run its Python file, and check all that can be checked without the other ranks.

    Parameters
    ----------
    path : path of the TOML file.
    overrides : ``a.b=value`` each; the value is TOML, or else a plain text.

    Raises
    ------
    JobFileError
        with every mistake in the file and the overrides.
    """
    path = Path(path)
    source = JobSource(path, overrides)
    found = list(mistakes(Sections, source.content, from_text))
    wrong = {mistake.path[0] for mistake in found if mistake.path}
    found += misfits(source.content, wrong, path.resolve().parent)
    if found or source.refused:
        raise JobFileError(source.refused + source.report(found))
    sections = msgspec.convert(source.content, Sections, dec_hook=from_text)
    fields = {name: getattr(sections, name) for name in sections.__struct_fields__}
    return Job(**fields, path=path, text=source.text, overrides=tuple(overrides))
