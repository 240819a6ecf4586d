"""The fabric simulated: any number of ranks in one process, on a virtual clock, in a seeded order of events.

Each rank runs its ordinary code in a greenlet and gives way where a real one would sleep. Messages take a random time
but stay in order between two ranks, as in MPI; ranks can be killed, paused and cut off from each other, messages can be
late or come twice. The same seed and the same faults give the same run.
"""

from mpips.fabric.sim.rank import SimFabric
from mpips.fabric.sim.simulation import Simulation

__all__ = ["SimFabric", "Simulation"]
