"""The launchers' messages that mean nothing to a user of mpips, taken out of what the ranks write."""

import re

_RULE = re.compile(r"-{60,}$")
_UNTESTED = re.compile(r"(WARNING: )?The selected '\w+' module '\w+' is (not tested for|insuficiently tested in)")
_HARMLESS = re.compile(
    r"NBC_Progress: an error 75\b|\d+ more process(es)? (has|have) sent help message help-mpi-ft\.txt"
    r"|pmix_ptl_base: send_msg: write failed: (Bad file descriptor|Broken pipe)"
    r"|Set MCA parameter \"\w*help_aggregate\" to 0|^\[warn\] Epoll (ADD|MOD|DEL)\(\d+\) on fd \d+ failed"
)
_FRAME = re.compile(r"={60,}$")
_BANNER = re.compile(r"=\s+BAD TERMINATION\b")
_ADVICE = re.compile(
    r"YOUR APPLICATION TERMINATED WITH THE EXIT STRING|This typically refers to a problem with your application\."
    r"|Please see the FAQ page for debugging suggestions"
)


class NoiseFilter:
    """Drops harmless lines and blocks from a stream of lines.

    With ULFM on, Open MPI warns in a block between two rules that shared-memory windows are "not tested for
    post-failure operation": mpips reads no window of a dead rank, so it says nothing to a user. When a rank dies, the
    others complain of collectives and connections that they can't finish; some of it ends in an empty line.
    """

    def __init__(self) -> None:
        self._held: str | None = None
        self._dropping = False
        self._dropped_last = False

    def pass_on(self, line: str) -> list[str]:
        """Give the lines to show now that `line` has come; a rule waits until the line after it is known."""
        held, self._held = self._held, None
        if self._dropping:
            self._dropping = not _RULE.match(line)
            return []
        if held is not None and _UNTESTED.match(line):
            self._dropping = True
            return []
        shown = [] if held is None else [held]
        self._dropped_last = bool(_HARMLESS.search(line)) or (self._dropped_last and not line.strip())
        if _RULE.match(line):
            self._held = line
        elif not self._dropped_last:
            shown.append(line)
        return shown

    def rest(self) -> list[str]:
        """Give what is still held back when the stream ends."""
        held, self._held = self._held, None
        return [] if held is None else [held]


class BannerFilter:
    """Drops the banner of MPICH's and Intel MPI's launcher about a process that has died.

    The process it names is any of those that were alive then: the launcher kills them all.

    Attributes
    ----------
    died : whether there was one.
    """

    def __init__(self) -> None:
        self.died = False
        self._held: list[str] = []
        self._dropping = False

    def pass_on(self, line: str) -> list[str]:
        """Give the lines to show now that `line` has come; a frame, and an empty line, wait until the next is known."""
        if self._dropping:
            self._dropping = not _FRAME.match(line)
            return []
        if self._held and _BANNER.match(line):
            self.died = self._dropping = True
            self._held = []
            return []
        if _FRAME.match(line) and self._held == [""]:
            self._held.append(line)
            return []
        shown = self.rest()
        if not line or _FRAME.match(line):
            self._held = [line]
        elif not (self.died and _ADVICE.match(line)):
            shown.append(line)
        return shown

    def rest(self) -> list[str]:
        """Give what is still held back when the stream ends."""
        held, self._held = self._held, []
        return held
