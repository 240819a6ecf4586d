"""How ranks reach each other: messages, arenas and reads, over MPI or simulated."""

from mpips.fabric.arena import ArenaFull
from mpips.fabric.base import Deadline, Fabric, PeerLost

__all__ = ["ArenaFull", "Deadline", "Fabric", "PeerLost"]
