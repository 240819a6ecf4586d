"""What the ranks write, line by line, as it comes."""

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from typing import IO

from mpips.cli.noise import BannerFilter, NoiseFilter

CHUNK = 1 << 16


class Output:
    """The two streams of a launcher's process, read without waiting for their end. A context manager.

    Parameters
    ----------
    process : started with pipes for its output and errors.
    say : shows a line.
    """

    def __init__(self, process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
        self._say = say
        self._noise = NoiseFilter()
        self._banner = BannerFilter()
        self._streams = selectors.DefaultSelector()
        self._parts: dict[int, bytes] = {}
        self._errors = self._register(process.stderr)
        self._register(process.stdout)

    def _register(self, stream: IO[bytes] | None) -> int:
        assert stream is not None, "the process was started without pipes"
        self._streams.register(stream, selectors.EVENT_READ)
        self._parts[stream.fileno()] = b""
        return stream.fileno()

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        rest = [*self._noise.rest(), *self._banner.rest()]
        for part in [*self._parts.values(), *(line.encode() for line in rest)]:
            if part.strip(b"\0"):
                self._say(_text(part))
        self._streams.close()

    @property
    def a_rank_died(self) -> bool:
        """Whether the launcher has said that it ends the job because a process has died."""
        return self._banner.died

    def pass_on(self, timeout: float) -> None:
        """Show the lines that are there, or come within `timeout` seconds."""
        if not self._streams.get_map():
            time.sleep(timeout)
        while self._streams.get_map() and (ready := self._streams.select(timeout)):
            for key, _ in ready:
                self._read(key)
            timeout = 0.0

    def _read(self, key: selectors.SelectorKey) -> None:
        chunk = os.read(key.fd, CHUNK)
        if not chunk:
            self._streams.unregister(key.fileobj)
        *lines, self._parts[key.fd] = (self._parts[key.fd] + chunk).split(b"\n")
        for line in lines:
            if line and not line.strip(b"\0"):  # so Open MPI ends its messages
                continue
            text = _text(line)
            for shown in (self._noise if key.fd == self._errors else self._banner).pass_on(text):
                self._say(shown)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r").replace("\0", "")
