"""Two that speak over a way that loses the end of what was said, and repeats: nothing is lost, nothing twice."""

from hypothesis import given
from hypothesis import strategies as st

from mpips.session import ALONE, Session

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.booleans()),  # by which side
        st.tuples(st.just("arrive"), st.booleans()),  # of what the side has sent, one more
        st.tuples(st.just("lose"), st.booleans()),  # all that the side has sent and is under way
        st.tuples(st.just("again"), st.booleans()),
    ),
    max_size=120,
)


class Side:
    def __init__(self):
        self.session = Session()
        self.said = []
        self.heard = []
        self.way = []  # what it has sent and has not arrived: number, how much was heard, message

    def send(self, utterances):
        self.way += [(number, self.session.heard, message) for number, message in utterances]

    def say(self):
        self.said.append(b"%d" % len(self.said))
        self.send([self.session.say(self.said[-1])])

    def hear(self, number, heard, message):
        self.session.safe(heard)
        if self.session.hear(number):
            self.heard.append(message)


@given(STEPS)
def test_everything_said_is_heard_once_and_in_order(steps):
    sides = Side(), Side()
    for what, first in steps:
        side, other = sides if first else sides[::-1]
        if what == "say":
            side.say()
        elif what == "arrive" and side.way:
            other.hear(*side.way.pop(0))
        elif what == "lose":
            side.way.clear()
        elif what == "again":
            side.send(side.session.kept)
        assert other.heard == side.said[: len(other.heard)]
    for side, other in (sides, sides[::-1]):
        side.way.clear()
        side.send(side.session.kept)
        for message in side.way:
            other.hear(*message)
        assert other.heard == side.said


def test_what_was_heard_is_kept_no_longer_even_if_the_other_side_has_nothing_to_say():
    speaker, listener, most = Session(), Session(), 0
    for _ in range(10 * ALONE):
        listener.hear(speaker.say(b"x").number)
        if listener.owes():
            speaker.safe(listener.heard)
        most = max(most, len(speaker.kept))
    assert most <= ALONE
