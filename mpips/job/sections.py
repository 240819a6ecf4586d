"""The sections of a job file, and their defaults."""

from typing import Annotated, Any, Literal

import msgspec

from mpips import rule
from mpips.algorithms.neural.settings import NeuralSettings
from mpips.algorithms.settings import BlockSettings
from mpips.checkpoint.spec import CheckpointSpec
from mpips.dataserver.spec import DataSpec
from mpips.fabric.spec import NetworkSpec
from mpips.plan import Delay
from mpips.quantities import Size
from mpips.scheduler.spec import RecoverySpec, ScaleSpec
from mpips.table import DType, Kind, TableSpec
from mpips.views.view import Roles

TABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_-]*$"


class TableSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[tables.NAME]``: as `mpips.table.TableSpec`, but ``rows`` may be "features", as many as the data have;
    ``trace`` has the keys, or names of features, whose updates are recorded.
    """

    kind: Kind = "dense"
    rows: Annotated[int, msgspec.Meta(ge=1)] | Literal["features"]
    width: Annotated[int, msgspec.Meta(ge=1)] = 1
    dtype: DType = "float32"
    rule: dict[str, Any] = msgspec.field(default_factory=lambda: {"name": "add"})
    aggregate: bool = False
    push_filters: list[dict[str, Any]] = []
    pull_filters: list[dict[str, Any]] = []
    trace: list[Annotated[int, msgspec.Meta(ge=0)] | str] = []

    def spec(self, name: str, features: int) -> TableSpec:
        """The table, once it is known how many features the data have."""
        table = TableSpec(
            name=name,
            kind=self.kind,
            rows=max(1, features) if self.rows == "features" else self.rows,
            width=self.width,
            dtype=self.dtype,
            rule=self.rule,
            aggregate=self.aggregate,
            push_filters=self.push_filters,
            pull_filters=self.pull_filters,
        )
        return rule.fitted(table)


class AlgorithmSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[algorithm]``: what is trained, into which table, how, for how long.

    `block` is for the solver of this name; see `mpips.algorithms.linear.block.BlockSettings`. A network,
    `neural`, makes its own tables.
    """

    name: Literal["linear", "neural"]
    table: str | None = None
    solver: Literal["online", "block"] = "online"
    passes: Annotated[int, msgspec.Meta(ge=1)] = 1
    evaluate_every: Annotated[int, msgspec.Meta(ge=0)] = 0
    epoch_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    block: BlockSettings | None = None
    neural: NeuralSettings | None = None


class GroupSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[groups.NAME]``: more workers, that run another program over the same tables.

    The program is "watch", which evaluates the live model, or a function of the job's Python file.
    """

    workers: Annotated[int, msgspec.Meta(ge=1)] = 1
    program: str
    delay: Annotated[int, msgspec.Meta(ge=0)] | Literal["eventual"] = "eventual"

    @property
    def bound(self) -> int | None:
        """The delay as a plan has it."""
        return None if self.delay == "eventual" else self.delay


class ConsistencySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[consistency]``: iterations that may be unfinished when the next begins: 0 is sequential, "eventual" any
    number, "auto" the scheduler's choice.
    """

    delay: Annotated[int, msgspec.Meta(ge=0)] | Literal["auto", "eventual"] = "auto"

    @property
    def bound(self) -> Delay:
        """The same as a plan has it."""
        if self.delay == "eventual":
            return None
        return self.delay


class MemorySection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[memory]``: bytes of the arena of each role's ranks; None is chosen by the ranks themselves."""

    server: Size | None = None
    data_server: Size | None = None
    worker: Size | None = None


class ServerSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]``: kernels that a server may run at once, on different shards; 0: its share of the node's cores."""

    threads: Annotated[int, msgspec.Meta(ge=0)] = 0


class FabricSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[fabric]``: how ranks reach each other's memory. ``separate_nodes`` takes every rank for a node of its own."""

    separate_nodes: bool = False


class Sections(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a job file may say."""

    roles: Roles = Roles()
    data: DataSpec
    tables: dict[Annotated[str, msgspec.Meta(pattern=TABLE_NAME)], TableSection] = {}
    algorithm: AlgorithmSection
    groups: dict[Annotated[str, msgspec.Meta(pattern=TABLE_NAME)], GroupSection] = {}
    consistency: ConsistencySection = ConsistencySection()
    recovery: RecoverySpec = RecoverySpec()
    plan: list[ScaleSpec] = []
    checkpoint: CheckpointSpec = CheckpointSpec()
    memory: MemorySection = MemorySection()
    server: ServerSection = ServerSection()
    network: NetworkSpec = NetworkSpec()
    fabric: FabricSection = FabricSection()
    python: str | None = None
