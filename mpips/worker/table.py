"""A table as a worker sees it: push and pull of a key range or a sorted key list.

On the server's own node a pull is a load from its arena; from another node it is a one-sided read of a range, or an
answer that the server leaves in its arena. A push leaves keys and values in this worker's arena and names them in a
message.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mpips.fabric import Fabric
from mpips.filters import Direction, Kkt
from mpips.messages import Traffic
from mpips.table import TableSpec
from mpips.tasks import Issued, Task
from mpips.views.chains import chains_of
from mpips.views.view import View
from mpips.worker.algebra import Algebra
from mpips.worker.asked import Asked
from mpips.worker.calls import Calls
from mpips.worker.far import Far
from mpips.worker.keys import Keys, Placement
from mpips.worker.outgoing import Outgoing
from mpips.worker.pulls import Pulls
from mpips.worker.pushes import Pushes
from mpips.worker.steps import Steps

Array = np.ndarray[Any, Any]


class Table(Algebra):
    """Made by the worker for every table of the job.

    Parameters
    ----------
    spec : the table.
    index : its number in the job.
    headers : arena offset of its first shard header, at every server.
    view : which says which server has which shard.
    fabric, issued : this worker's.
    identity : whose pushes those between batches are.
    resumed : called with the number of a view when the first push that was sent again for it is acknowledged.
    delay : pushes of this worker that may be unfinished when it pulls; None: any number. Of a table with `aggregate`,
        a push is finished when those of all workers are. It may change at any time.
    """

    def __init__(
        self,
        spec: TableSpec,
        index: int,
        headers: int,
        view: View,
        fabric: Fabric,
        issued: Issued,
        identity: int,
        resumed: Callable[[int], None],
        delay: int | None = None,
    ) -> None:
        self.spec = spec
        self.delay = delay
        self._issued = issued
        self._placement = Placement(spec, view.number, chains_of(view, spec).heads.tolist())
        self._outgoing = Outgoing(spec, fabric, issued)
        self._steps = Steps(identity)
        self._pushes = Pushes(spec, index, self._placement, fabric, issued, self._outgoing, self._steps, resumed)
        self._asked = Asked(issued, set(view.lost))
        far = Far(spec, index, headers, self._placement, fabric, issued, self._outgoing, self._pushes.lane)
        self._pulls = Pulls(spec, headers, self._placement, fabric, issued, self._asked, far)
        self._calls = Calls(spec, index, self._placement, fabric, issued, self._asked, self._pushes)

    @property
    def name(self) -> str:
        """The table's name."""
        return self.spec.name

    def keys(self, keys: Any) -> Keys:
        """Check a key list and find out who has which of them.

        Parameters
        ----------
        keys : (n,) integers, sorted, each once; rows of a dense table, any unsigned 64-bit key of a sparse one.

        Raises
        ------
        KeyRangeError
            when they are not sorted, not unique or not in the table.
        """
        return self._placement.keys(keys)

    def viewed(self, view: View) -> None:
        """Take another view: what servers have not done or answered that have other shards now, or are dead, is asked
        again.
        """
        placement = Placement(self.spec, view.number, chains_of(view, self.spec).heads.tolist())
        changed = placement.changed_from(self._placement)
        if changed:
            self._placement = placement
            self._pulls.viewed(placement)
            self._calls.viewed(placement)
            self._pushes.viewed(placement, changed)
        self._asked.viewed(changed, set(view.lost))

    # --- push -------------------------------------------------------------------------------------------------------

    def push(
        self,
        keys: Any,
        values: Any,
        after: Iterable[Task[Any]] = (),
        within: range | slice | None = None,
        rule: dict[str, float] | None = None,
    ) -> Task[None]:
        """Send updates, which the servers apply by the table's rule, in the order of this worker's pushes.

        The values are copied before this returns; the task is finished when every server has applied its part.

        Parameters
        ----------
        keys : ``range(lo, hi)`` or ``slice`` of a dense table's rows; or sorted unique keys (n,); or `Keys`.
        values : (n,) for width 1, else (n, width); converted to the table's dtype. A rule with several inputs takes
            (n, width·inputs), the inputs of a value side by side.
        after : tasks that must be finished before this one is applied; where every server of this push was asked to do
            them, too, each waits for its own part of them.
        within : of a dense table, the rows that this push is about: its keys are among them, and its time is kept
            for them alone. Workers that push to an aggregating table push about the same rows in turn.
        rule : parameters of the table's rule that are others for this push, such as ``{"rate": 0.01}``. Pushes that are
            aggregated must agree.

        Raises
        ------
        KeyRangeError, ShapeError, NonFiniteError, RuleError
            for wrong keys, values of another shape, NaN or infinite ones, or parameters that the rule does not have;
            nothing is sent.
        """
        return self._pushes.push(keys, values, self._issued.known(after), within, rule or {})

    def push_product(
        self,
        left: Any,
        right: Any,
        after: Iterable[Task[Any]] = (),
        within: range | slice = slice(None),
        rule: dict[str, float] | None = None,
    ) -> Task[None]:
        """Send updates of rows of a dense table as two matrices: servers multiply them out, ``left @ right.T``.

        Of a layer's gradient these are its error gradients and its inputs, for each image of a batch: for large layers
        much less to send (Chilimbi et al. 2014, section 4.4.1).

        Parameters
        ----------
        left : (rows, n), converted to the table's dtype.
        right : (width·inputs, n).
        within : these rows; all by default.
        after, rule : as of `push`.

        Raises
        ------
        ShapeError, NonFiniteError, RuleError
            as `push` does.
        """
        return self._pushes.push_product(left, right, self._issued.known(after), within, rule or {})

    def begin_batch(self, identity: int, counter: int, cut: int = 0) -> None:
        """What is pushed from now on belongs to the batch of this number of all that this identity was given, which was
        handed out after this cut.
        """
        self._steps.begin_batch(identity, counter, cut)

    def cross(self, cut: int) -> None:
        """What is pushed from now on, but for batches that were handed out before, comes after this cut."""
        self._steps.cross(cut)

    def end_batch(self) -> None:
        """What is pushed from now on belongs to no batch."""
        self._steps.end_batch()

    def pass_by(self, identity: int, counter: int) -> None:
        """The batches up to this one of an identity are over, whoever did them."""
        self._steps.pass_by(identity, counter)

    def unfinished(self) -> list[Task[None]]:
        """The pushes of this worker that are not acknowledged yet."""
        return self._pushes.unfinished()

    def settle(self) -> None:
        """Wait until every push of this worker is acknowledged; the error of one that failed is raised."""
        self._pushes.settle()

    @property
    def pushes(self) -> int:
        """How many pushes this worker has sent."""
        return self._pushes.sent

    # --- filters ----------------------------------------------------------------------------------------------------

    @property
    def kkt(self) -> Kkt | None:
        """The KKT filter of the table's pushes, if it has one: an algorithm tells it what it need not push."""
        return self._outgoing.kkt

    def give_keys(self, server: int, direction: Direction, signature: int) -> Array:
        """The key list of a signature, for a server that has forgotten it."""
        return self._outgoing.chain(server, direction)["key_cache"].keys_of(signature)  # type: ignore[no-any-return]

    def traffic(self) -> Traffic:
        """What this worker has sent to servers on other nodes."""
        return self._outgoing.traffic()

    # --- pull -------------------------------------------------------------------------------------------------------

    def pull(
        self,
        keys: Any,
        out: Array | None = None,
        after: Iterable[Task[Any]] = (),
        consistent: bool = False,
        above: tuple[int, float] | None = None,
    ) -> Task[Any]:
        """Read values.

        Parameters
        ----------
        keys : ``range(lo, hi)`` or ``slice``; or sorted unique keys (n,); or `Keys`.
        out : array of the result's shape and the table's dtype to read into; a new one by default.
        after : tasks that must be finished before this one reads.
        consistent : have every shard of a dense range read between two pushes, never in the midst of one.
        above : of a list of rows of a dense table, also say whether this slot of their update state is above this
            threshold.

        Returns
        -------
        Task
            whose result is values (n,) or (n, width); a range of a sparse table gives its keys and values,
            ``(keys (n,), values)``, sorted by key; `above` gives values and flags (n,) bool. Keys that were never
            pushed are zero.
        """
        before = [*self._issued.known(after), *self._pushes.older(self.delay)]
        return self._pulls.pull(keys, out, before, consistent, above)

    # --- functions on the servers -----------------------------------------------------------------------------------

    def call(
        self,
        function: str,
        keys: range | slice = slice(None),
        argument: Any = (),
        after: Iterable[Task[Any]] = (),
    ) -> Task[Any]:
        """Run a shard function, built in or registered by `mpips.shard_function`, where the shards are.

        Parameters
        ----------
        function : its name; see `mpips.functions`.
        keys : the key range that it is run on.
        argument : numbers for the function, (m,); of one that is `by_row` as many as the range has values.
        after : tasks that must be done before.

        Returns
        -------
        Task
            whose result is the replies of all shards, reduced to one as the function says.

        Raises
        ------
        KeyRangeError
            when the range is not within the table.
        FunctionError
            when there is no such function.
        ShapeError
            when the argument has too few or too many numbers.
        """
        return self._calls.call(function, keys, argument, self._issued.known(after))
