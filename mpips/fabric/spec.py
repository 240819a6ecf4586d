"""The job file's section on the network between hosts."""

from typing import Annotated

import msgspec


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which network, and when a host that is not heard there is given up.

    Parameters
    ----------
    interface : names of interfaces, or networks such as ``"10.0.0.0/16"``, separated by commas, for MPI's messages and
        for signs of life; None: MPI's choice, and any.
    heartbeat : seconds from one sign of life of a rank to the next.
    timeout : seconds without any sign of life of a host until its ranks are taken for dead.
    """

    interface: Annotated[str, msgspec.Meta(pattern=r"^[\w.:/,@-]+$")] | None = None
    heartbeat: Annotated[float, msgspec.Meta(gt=0)] = 0.3
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 2.0

    def __post_init__(self) -> None:
        if self.timeout < 2 * self.heartbeat:
            raise ValueError("timeout must be at least twice heartbeat: a single datagram may be lost")
