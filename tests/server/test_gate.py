"""Pushes that are held up while a server rests are applied in their order, and before what came after them."""

from mpips.server.gate import Gate


def test_what_follows_something_held_up_comes_after_all_that_is_held_up():
    gate, ran = Gate(None, 1, {}), []

    def task(name, then=None):
        def run():
            if gate.holds_up(run):
                return
            ran.append(name)
            if then is not None:
                then()

        return run

    gate.resting = 1
    task("first", then=task("waits for the first"))()
    task("second")()
    assert ran == []
    gate.go_on()
    assert ran == ["first", "second", "waits for the first"]
    assert gate.waiting() == []
    task("later")()
    assert ran[-1] == "later"
