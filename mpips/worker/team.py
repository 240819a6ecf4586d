"""A team: workers of a group that have one copy of a model together, and work on the same batches.

Source: the model replicas and partitions of Chilimbi et al. 2014, section 4.3.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mpips.errors import Error
from mpips.worker.exchanges import Exchange, Exchanges, Key

Array = np.ndarray[Any, Any]


class Regrouped(Error, RuntimeError):
    """The team has another member now: the workload that it is at will be begun again."""


class Team:
    """As one of its members sees it. One worker alone is a team, too.

    Parameters
    ----------
    exchanges : this rank's.
    ranks : its members.
    rank : this one.
    era : the number of the view that they are a team in.

    Attributes
    ----------
    member, size : which of how many this is.
    regrouped : whether it has another member since the batch in use was begun.
    """

    def __init__(self, exchanges: Exchanges, ranks: list[int], rank: int, era: int) -> None:
        self.member = ranks.index(rank)
        self.size = len(ranks)
        self.regrouped = False
        self._exchanges = exchanges
        self._ranks = ranks
        self._begin(era)

    def _begin(self, era: int) -> None:
        self._era = era
        if self.size > 1:
            self._exchanges.begin(era)

    @property
    def leads(self) -> bool:
        """Whether this member asks for work."""
        return self.member == 0

    def viewed(self, ranks: list[int], era: int) -> bool:
        """These are its members from a view on; none when it is dissolved. Whether that is a change."""
        if ranks == self._ranks:
            return False
        self._ranks = ranks
        self.regrouped = True
        self._begin(era)
        return True

    def swap(self, key: Key, give: Mapping[int, Array], take: Mapping[int, Array]) -> Exchange:
        """Give arrays to other members, and take what they give under the same key: by member, the array, and where to
        put it.

        Raises
        ------
        Regrouped
            when the team is not the one that the batch was begun by.
        ArenaFull, Deadline
            when there is no room for what is given.
        """
        self.check()
        key = self._era, *key
        exchange = self._exchanges.take(key, {self._ranks[member]: place for member, place in take.items()})
        self._exchanges.give(key, {self._ranks[member]: array for member, array in give.items()})
        return exchange

    def check(self) -> None:
        """See that the team is the one that the batch was begun by.

        Raises
        ------
        Regrouped
            when it is not.
        """
        if self.regrouped:
            raise Regrouped("the team has another member")
