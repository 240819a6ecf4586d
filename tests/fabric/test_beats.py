"""Signs of life: heard while a rank computes, not after it has left, and only those of this job."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mpips.fabric import beats
from mpips.fabric.beats import Address, Beats, NetworkError, addresses, pack, unpack

PERIOD = 0.05
SOON = 5.0
Make = Callable[..., list[Beats]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Ranks on hosts of their own, which hear each other; the addresses are all of this machine."""
    made: list[Beats] = []

    def begin(tokens: list[int], nodes: list[int] | None = None) -> list[Beats]:
        ranks = range(len(tokens))
        for rank in ranks:
            monkeypatch.setattr(beats, "addresses", lambda _, rank=rank: ["127.0.0.9", f"127.0.1.{rank + 1}"])
            made.append(Beats(rank, PERIOD, None))
        for each, token in zip(made, tokens, strict=True):
            each.begin([other.address for other in made], nodes or list(ranks), token)
            each.send_to(ranks)
        return made

    yield begin
    for each in made:
        each.end()


def until(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold soon."""
    deadline = time.monotonic() + SOON
    while not holds() and time.monotonic() < deadline:
        time.sleep(PERIOD / 5)
    return holds()


def test_everyone_is_heard_again_and_again(make: Make) -> None:
    first, second, third = make([7, 7, 7])
    assert until(lambda: None not in (first.heard(1), first.heard(2), second.heard(0), third.heard(1)))
    before = first.heard(1) or 0.0
    assert until(lambda: (first.heard(1) or 0.0) > before + PERIOD / 2)


def test_a_rank_that_computes_is_heard(make: Make) -> None:
    first, _ = make([7, 7])
    assert until(lambda: first.heard(1) is not None)
    end, numbers = time.perf_counter() + 10 * PERIOD, np.arange(1000.0)
    while time.perf_counter() < end:  # with the interpreter's lock, mostly
        sum(numbers.tolist())
    assert time.perf_counter() - (first.heard(1) or 0.0) < 5 * PERIOD


def test_who_has_left_is_heard_no_more(make: Make) -> None:
    first, second = make([7, 7])
    assert until(lambda: first.heard(1) is not None)
    second.end()
    assert until(lambda: time.perf_counter() - (first.heard(1) or 0.0) > 5 * PERIOD)


def test_signs_of_another_job_and_noise_are_not_heard(make: Make) -> None:
    first, second, third = make([7, 8, 7])
    first._socket.sendto(b"noise", ("127.0.0.1", third.address.port))
    assert until(lambda: third.heard(0) is not None)
    assert until(lambda: first.heard(2) is not None)
    assert third.heard(1) is first.heard(1) is second.heard(0) is None


def test_on_its_own_node_nobody_gives_signs(make: Make) -> None:
    first, second, third = make([7, 7, 7], nodes=[0, 0, 1])
    assert until(lambda: None not in (third.heard(0), third.heard(1)))
    assert first.heard(1) is second.heard(0) is None


def test_of_a_rank_that_came_later_nothing_is_known(make: Make) -> None:
    first, _ = make([7, 7])
    assert first.heard(5) is None


def test_an_address_survives_its_way() -> None:
    address = Address(["10.0.0.1", "10.1.0.1"], 4711)
    assert unpack(pack(address)) == address


def test_a_network_that_a_host_does_not_have_is_named() -> None:
    with pytest.raises(NetworkError, match=r"no address in network\.interface = 'nonesuch0,203\.0\.113\.0/24'; it has"):
        addresses("nonesuch0,203.0.113.0/24")


def test_that_a_host_lacks_the_network_is_known_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking, other = Beats(0, PERIOD, "nonesuch0"), Beats(1, PERIOD, None)
    for each in (lacking, other):
        with pytest.raises(NetworkError, match="nonesuch0"):
            each.begin([unpack(pack(rank.address)) for rank in (lacking, other)], [0, 1], 7)


def test_an_interface_is_chosen_by_name_and_by_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def address(text: str) -> list[object]:
        return [type("Address", (), {"family": beats.socket.AF_INET, "address": text})()]

    there = {"lo": address("127.0.0.1"), "eth0": address("10.0.0.5"), "ib0": address("10.1.0.5")}
    monkeypatch.setattr(beats.psutil, "net_if_addrs", lambda: there)
    assert addresses(None) == ["10.0.0.5", "10.1.0.5"]
    assert addresses("ib0") == addresses("10.1.0.0/16") == ["10.1.0.5"]
    assert addresses("eth0,ib0") == ["10.0.0.5", "10.1.0.5"]
