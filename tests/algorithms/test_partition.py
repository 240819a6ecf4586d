"""Networks whose layers are split over the members of a team, against the same in one piece."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from msgspec import structs

from mpips.algorithms.neural.network import Network, alone
from mpips.algorithms.neural.partition import Box, shares, split, whole
from mpips.algorithms.neural.relay import Swap, Work
from mpips.algorithms.neural.settings import Shape, shapes_of, weights_of
from mpips.plan import MB, Memory
from mpips.rank.rank import Rank
from mpips.views.view import Roles
from tests.algorithms.test_neural import (
    ALL_KINDS,
    CLASSES,
    GENTLER,
    SMALL,
    STACKS,
    noting,
    plan_of,
    result_of,
    run,
    settings_of,
    weights_at_servers,
)
from tests.simulated import PLACES, SLOW, SimulatedJob

IMAGE = Shape(2, 8, 7)


def by_rows(layers):
    """The same with convolutions that are split by rows of the image."""
    return [layer | ({"split": "rows"} if layer["layer"] == "convolution" else {}) for layer in layers]


def alternating(layers):
    """The same with convolutions that are split by rows and by channels in turn."""
    kinds = iter(["rows", "channels"] * len(layers))
    return [layer | ({"split": next(kinds)} if layer["layer"] == "convolution" else {}) for layer in layers]


def together(works: Sequence[Work]) -> list:
    """What comes of a team's works, which give each other what they need."""
    swaps: list[Swap | None] = [None] * len(works)
    results = [None] * len(works)
    open_works = set(range(len(works)))
    while open_works:
        for member in sorted(open_works):
            try:
                swaps[member] = next(works[member])
            except StopIteration as end:
                results[member] = end.value
                open_works.discard(member)
        if open_works:
            assert len(open_works) == len(works), "all come to the same swaps"
            laid = {
                (member, to): np.array(array) for member, swap in enumerate(swaps) for to, array in swap.give.items()
            }
            for member, swap in enumerate(swaps):
                assert all(laid[of, member].shape == place.shape for of, place in swap.take.items())
                for of, place in swap.take.items():
                    place[...] = laid.pop((of, member))
            assert not laid, "what is given is taken"
    return results


class Team:
    """A network in one piece, and in `size`, with the same weights."""

    def __init__(self, layers, size, rng, dtype=np.float64):
        settings = settings_of(layers)
        shapes = shapes_of(settings.layers, IMAGE, CLASSES)
        self.weights = weights_of(settings.layers, shapes, 20)
        self.values = [
            (rng.normal(size=(w.units, w.inputs + 1)) / np.sqrt(w.inputs)).astype(dtype) for w in self.weights
        ]
        self.size = size
        self.whole = Network(settings.layers, shapes, self.weights, self.values)
        self.members = [
            Network(
                settings.layers,
                shapes,
                self.weights,
                [
                    np.ascontiguousarray(values[slice(*shares(len(values), size)[member])])
                    for values in self.values
                ],
                member,
                size,
            )
            for member in range(size)
        ]  # fmt: skip


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("cut", [list, by_rows, alternating])
@pytest.mark.parametrize("name", STACKS)
def test_a_team_finds_the_gradients_of_the_network_in_one_piece(name, cut, size, rng):
    team = Team(cut(STACKS[name]), size, rng)
    for n in (6, 3):
        images, labels = rng.integers(0, 256, (n, *IMAGE)).astype(np.uint8), rng.integers(0, CLASSES, n)
        expected, *parts = ({} for _ in range(1 + size))
        loss = alone(team.whole.learn(images, labels, 5, noting(expected)))
        losses = together(
            [member.learn(images, labels, 5, noting(own)) for member, own in zip(team.members, parts, strict=True)]
        )
        assert np.allclose(losses, loss, rtol=1e-12)
        for number, gradient in expected.items():
            found = np.concatenate([own[number] for own in parts if number in own])
            assert np.allclose(found, gradient, rtol=1e-10, atol=1e-12)
        assert max(np.abs(gradient).max() for gradient in expected.values()) > 1e-6
        scores = together([member.scores(images) for member in team.members])
        for own in scores:
            assert np.allclose(own, alone(team.whole.scores(images)), rtol=1e-12)


@pytest.mark.parametrize("cut", [list, by_rows])
def test_every_value_is_made_by_one_member(cut):
    settings = settings_of(cut(ALL_KINDS))
    shapes = shapes_of(settings.layers, IMAGE, CLASSES)
    order = range(len(settings.layers))
    for place, part in enumerate(split(settings.layers, order, shapes, 3)):
        counts = np.zeros(shapes[place + 1][:2], int)
        for box in part.makes:
            counts[box.within(whole(shapes[place + 1]))] += 1
        assert (counts == 1).all()


def test_rows_need_their_neighbours_and_no_more():
    settings = settings_of([{"layer": "convolution", "channels": 2, "size": 3, "padding": 1, "split": "rows"}])
    parts = split(settings.layers, [0], [Shape(1, 8, 8), Shape(2, 8, 8)], 2)
    assert parts[0].makes == [Box((0, 2), (0, 4)), Box((0, 2), (4, 8))]
    assert parts[0].needs == [Box((0, 1), (0, 5)), Box((0, 1), (3, 8))]


# --- jobs -------------------------------------------------------------------------------------------------------------


def team_plan(data, partitions, teams=1, spares=0, **settings):
    neural = {"partitions": partitions, **settings.pop("neural", {})}
    roles = Roles(servers=2, data_servers=1, workers=partitions * teams, spares=spares)
    return plan_of(data, neural=neural, team=partitions, roles=roles, **settings)


@pytest.mark.parametrize("nodes", ["one node", "nodes of their own"])
@pytest.mark.parametrize("cut", [list, by_rows])
@pytest.mark.parametrize("partitions", [2, 4])
def test_a_team_trains_the_model_that_one_worker_trains(data, tmp_path, nodes, cut, partitions):
    layers = [*cut(ALL_KINDS[:3]), *cut(SMALL)]
    made, metrics = [], []
    for size in (1, partitions):
        run_folder = tmp_path / str(size)
        neural = {"layers": layers, "step": 7, "in_flight": 1}
        network, plan = team_plan(data, size, passes=2, run=run_folder, neural=neural)
        made.append(weights_at_servers(run(plan, nodes), network))
        metrics.append(json.loads((run_folder / "result.json").read_text())["metrics"])
    for one, other in zip(*made, strict=True):
        assert np.allclose(one, other, atol=1e-4)
        assert np.abs(one).max() > 0.05
    assert metrics[0]["confusion"] == metrics[1]["confusion"]


@pytest.mark.parametrize("nodes", ["one node", "nodes of their own"])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_teams_learn(data, tmp_path, nodes, in_flight):
    neural = {"step": 5, "in_flight": in_flight} | GENTLER
    _, plan = team_plan(data, 2, teams=2, in_step=False, passes=16, run=tmp_path, neural=neural)
    run(plan, nodes)
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["accuracy"] > 0.9
    assert np.sum(metrics["confusion"]) == 90


@pytest.mark.parametrize("threads", [(8, 1), (1, 8)])
def test_members_may_have_other_numbers_of_cores(data, tmp_path, monkeypatch, threads):
    """What fits into an arena is what is given for the steps in flight, not for one step of each thread."""
    own = Rank._threads

    def given(self):
        workers = self.view.groups["train"]
        return threads[workers.index(self._fabric.rank)] if self._fabric.rank in workers else own(self)

    monkeypatch.setattr(Rank, "_threads", given)
    layers = [{"layer": "convolution", "channels": 32, "size": 3}, {"layer": "relu"}, {"layer": "connected"}]
    memory = Memory(server=4 * MB, data_server=4 * MB, worker=192 << 10)
    neural = {"layers": layers, "step": 5, "threads": 0}
    spec, folder = data
    larger = structs.replace(spec, batch=40), folder
    _, plan = team_plan(larger, 2, in_step=False, passes=1, run=tmp_path, neural=neural, memory=memory)
    assert result_of(run(plan))["exit"] == "finished"


@pytest.mark.parametrize("spares", [0, 1])
@pytest.mark.parametrize("member", [0, 1])
def test_a_team_that_loses_a_member_goes_on_with_a_spare_or_leaves_its_work_to_another(
    data, tmp_path, spares, member, seed
):
    neural = {"step": 5} | GENTLER
    _, plan = team_plan(data, 2, 2, spares, in_step=False, passes=6, run=tmp_path, neural=neural)
    alone = run(plan, "nodes of their own", latency=SLOW)
    victim = alone.view.groups["train"][2 + member]
    at = np.random.default_rng(seed).uniform(0.2, 0.9) * alone.simulation.time
    job = SimulatedJob(plan, PLACES["nodes of their own"](len(alone.view.nodes)), seed, latency=SLOW)
    job.simulation.kill(victim, at)
    job.run()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["exit"] == "finished"
    assert result["metrics"]["accuracy"] > 0.5
    assert np.sum(result["metrics"]["confusion"]) == 90
