"""One rank's life, whatever roles it has: it takes them, runs programs, and follows the scheduler if it has to."""

from mpips.rank.newcomer import join
from mpips.rank.rank import Outcome, Rank

__all__ = ["Outcome", "Rank", "join"]
