"""How ranks reach each other: messages, arenas and reads, over MPI or simulated."""

from mpips.fabric.arena import ArenaFull
from mpips.fabric.base import Deadline, Fabric, NoBirth, PeerLost

__all__ = ["ArenaFull", "Deadline", "Fabric", "NoBirth", "PeerLost"]
