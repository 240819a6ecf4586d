"""One dictionary for all data servers: the features of every part, merged by one of them and taken from it by the rest.

The data server of the first part collects, for whatever view is in force. Whoever has read a part offers it the part's
names, and is given the whole in return; a collector that takes another's place asks whether anyone has the whole
already. The whole is the same whoever merges it.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpips.dataserver.dictionary import Dictionary
from mpips.dataserver.shelf import Shelf
from mpips.errors import Error
from mpips.fabric import ArenaFull, Fabric
from mpips.line import Line
from mpips.messages import DictionaryPart, DictionaryTaken, DictionaryWanted, DictionaryWhole, Failed, Note
from mpips.views.view import View

NAMES_FILE = "names.h5"
RETRY_SECONDS = 5.0


class Names:
    """A data server's share in it.

    Parameters
    ----------
    fabric, view, line : this rank's way to the others, who does what, and the way to the scheduler.
    shelf : where this rank leaves what others are to read.
    run : the run folder, where the names go; None for a job that leaves no files.
    go_on : called when the whole is there, and when the shelf may have room again.

    Attributes
    ----------
    whole : the dictionary of all parts, when it is there.
    """

    def __init__(
        self, fabric: Fabric, view: View, line: Line, shelf: Shelf, run: Path | None, go_on: Callable[[], None]
    ) -> None:
        self.whole: Dictionary | None = None
        self._fabric = fabric
        self._view = view
        self._line = line
        self._shelf = shelf
        self._run = run
        self._go_on = go_on
        self._own: dict[int, Dictionary] = {}
        self._collected: dict[int, Dictionary] = {}
        self._fetching: set[tuple[int, int | None]] = set()
        self._askers: dict[int, None] = {}  # who wants the whole, in order
        self._offers: deque[tuple[int, int | None]] = deque()  # what waits for room: to whom, and which part; None: all
        self._saved = run is None
        self._try_at = 0.0
        fabric.on(DictionaryWanted, self._wanted)
        fabric.on(DictionaryPart, self._part)
        fabric.on(DictionaryWhole, self._offered)
        fabric.on(DictionaryTaken, self._taken)
        fabric.background += [self._offer_more, self._save]
        self._ask()

    @property
    def need_room(self) -> bool:
        """Whether names wait for room on the shelf."""
        return bool(self._offers)

    def read(self, part: int, dictionary: Dictionary) -> None:
        """A part is read, and has these names."""
        self._own[part] = dictionary
        if self.whole is None:
            self._contribute(part)

    def viewed(self, old: View, new: View) -> None:
        """Go on with those that this view names."""
        self._view = new
        for rank in new.lost:
            self._askers.pop(rank, None)
        self._offers = deque(offer for offer in self._offers if offer[0] not in new.lost)
        if self.whole is None:
            self._ask()
            if old.parts[0] != new.parts[0]:
                for part in self._own:
                    self._contribute(part)

    @property
    def _collects(self) -> bool:
        return self._view.parts[0] == self._fabric.rank

    def _ask(self) -> None:
        if self._collects:
            for peer in self._view.data_servers:
                if peer != self._fabric.rank:
                    self._fabric.send(peer, DictionaryWanted())

    def _contribute(self, part: int) -> None:
        if self._collects:
            self._collect(part, self._own[part])
        else:
            self._offer(self._view.parts[0], part)

    # --- collecting -------------------------------------------------------------------------------------------------

    def _part(self, source: int, message: DictionaryPart) -> None:
        self._wanted(source, DictionaryWanted())
        part = message.part
        if self.whole is not None or part in self._collected:
            self._fabric.send(source, DictionaryTaken(part))
            return

        def arrived(blob: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
            self._collect(part, Dictionary.unpack(blob))

        self._fetch(source, part, message.offset, message.size, arrived)

    def _collect(self, part: int, dictionary: Dictionary) -> None:
        if self.whole is None:
            self._collected[part] = dictionary
            parts = range(len(self._view.parts))
            if len(self._collected) == len(parts):
                try:
                    self._have(Dictionary.merge([self._collected[part] for part in parts]))
                except Error as error:
                    self._line.tell(Failed(f"the names of the features: {error}"))

    def _fetch(
        self,
        source: int,
        part: int | None,
        offset: int,
        size: int,
        then: Callable[[np.ndarray[tuple[int], np.dtype[np.uint8]]], None],
    ) -> None:
        """Read what a rank offers, once however often it does."""
        if (source, part) in self._fetching:
            return
        self._fetching.add((source, part))
        blob = np.empty(size, np.uint8)

        def arrived() -> None:
            self._fetching.discard((source, part))
            self._fabric.send(source, DictionaryTaken(part))
            then(blob)

        self._fabric.fetch(source, offset, blob, arrived)

    # --- having the whole -------------------------------------------------------------------------------------------

    def _have(self, whole: Dictionary) -> None:
        if self.whole is not None:
            return
        self.whole = whole
        self._collected.clear()
        for rank in self._askers:
            self._offer(rank, None)
        self._askers.clear()
        self._go_on()

    def _wanted(self, source: int, message: DictionaryWanted) -> None:
        if self.whole is None:
            self._askers[source] = None
        else:
            self._offer(source, None)

    def _offered(self, source: int, message: DictionaryWhole) -> None:
        if self.whole is not None:
            self._fabric.send(source, DictionaryTaken(None))
            return

        def arrived(blob: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
            self._askers.pop(source, None)
            self._have(Dictionary.unpack(blob))

        self._fetch(source, None, message.offset, message.size, arrived)

    def _save(self) -> bool:
        """Write the names of the features beside the checkpoints; tried again while that fails."""
        if self._saved or self.whole is None or not self._collects or self._fabric.now() < self._try_at:
            return False
        assert self._run is not None
        path = self._run / NAMES_FILE
        temporary = path.with_name(f".{NAMES_FILE}.{self._fabric.rank}")
        try:
            self.whole.save(temporary)
            temporary.replace(path)
            self._saved = True
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._try_at = self._fabric.now() + RETRY_SECONDS
            reason = os.strerror(error.errno) if error.errno else str(error)
            self._line.tell(Note(f"{path}: {reason}: the names of the features are not saved yet"))
        return True

    # --- offering ---------------------------------------------------------------------------------------------------

    def _offer(self, rank: int, part: int | None) -> None:
        if (rank, part) not in self._offers:
            self._offers.append((rank, part))

    def _offer_more(self) -> bool:
        done = False
        while self._offers:
            rank, part = self._offers[0]
            dictionary = self.whole if part is None else self._own[part]
            assert dictionary is not None
            name = "names", part
            try:
                if name not in self._shelf and not self._shelf.put(name, dictionary.nbytes, dictionary.pack_into):
                    break
            except ArenaFull as error:
                self._offers.clear()
                self._line.tell(Failed(f"the names of the features: {error}"))
                break
            self._offers.popleft()
            place = self._shelf.lend(name, (rank, name))
            self._fabric.send(rank, DictionaryWhole(*place) if part is None else DictionaryPart(part, *place))
            done = True
        return done

    def _taken(self, source: int, message: DictionaryTaken) -> None:
        self._shelf.give_back((source, ("names", message.part)))
        self._go_on()
