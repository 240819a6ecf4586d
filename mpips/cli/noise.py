"""Open MPI's messages that mean nothing for mpips, taken out of the ranks' error output."""

import re

_RULE = re.compile(r"-{60,}$")
_UNTESTED = re.compile(r"(WARNING: )?The selected '\w+' module '\w+' is (not tested for|insuficiently tested in)")
_HARMLESS = re.compile(
    r"NBC_Progress: an error 75\b|\d+ more process(es)? (has|have) sent help message help-mpi-ft\.txt"
    r"|pmix_ptl_base: send_msg: write failed: (Bad file descriptor|Broken pipe)"
    r"|Set MCA parameter \"\w*help_aggregate\" to 0|^\[warn\] Epoll (ADD|MOD|DEL)\(\d+\) on fd \d+ failed"
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
