"""Pushes whose updates are a product, and pushes with parameters of the rule that are others than the table's."""

import numpy as np
import pytest

from mpips.rule import RuleError
from mpips.views.view import Roles
from mpips.worker.keys import ShapeError
from mpips.worker.pushes import NonFiniteError
from tests.simulated import PLACES, SLOW, SimulatedJob, program_plan, rest, run, table

ROWS, WIDTH = 700, 5
MOMENTUM = {"name": "momentum", "rate": 0.5, "momentum": 0.8, "decay": 0.01}


def factors(worker, number, terms=3):
    rng = np.random.default_rng([worker, number])
    return rng.normal(size=(ROWS, terms)).astype("f"), rng.normal(size=(WIDTH, terms)).astype("f")


def expected(gradients, rate=0.5, momentum=0.8, decay=0.01):
    """What gradient descent makes of them."""
    values, velocity = np.zeros((ROWS, WIDTH)), np.zeros((ROWS, WIDTH))
    for gradient in gradients:
        velocity = momentum * velocity - rate * (gradient + decay * values)
        values = values + velocity
    return values


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("filters", [[], [{"name": "compression"}]], ids=["plain", "filtered"])
def test_a_product_counts_as_the_updates_that_it_gives(place, servers, filters):
    def program(worker):
        for number in range(4):
            worker.table("w").push_product(*factors(0, number))
        return worker.table("w").pull(range(ROWS), after=worker.table("w").unfinished()).wait().tolist()

    spec = table(rows=ROWS, width=WIDTH, rule=MOMENTUM, push_filters=filters)
    job = run(program, spec, nodes=PLACES[place](2 + servers), servers=servers)
    assert np.allclose(
        job.results[0], expected([left @ right.T for left, right in (factors(0, n) for n in range(4))]), atol=1e-4
    )


@pytest.mark.parametrize("place", ["one node", "nodes of their own"])
def test_products_of_all_workers_are_summed(place):
    def program(worker):
        for number in range(3):
            worker.table("w").push_product(*factors(worker.index, number)).wait()
        return worker.table("w").pull(range(ROWS)).wait().tolist()

    spec = table(rows=ROWS, width=WIDTH, rule=MOMENTUM, aggregate=True)
    job = run(program, spec, nodes=PLACES[place](6), servers=2)
    sums = [sum(left @ right.T for left, right in (factors(worker, n) for worker in range(3))) for n in range(3)]
    assert np.allclose(job.results[2], expected(sums), atol=1e-4)


@pytest.mark.parametrize("how", ["range", "keys", "product"])
def test_a_push_may_have_parameters_of_its_own(how):
    gradients = [left @ right.T for left, right in (factors(0, n) for n in range(2))]

    def program(worker):
        w = worker.table("w")
        for number, rate in enumerate((0.25, 0.75)):
            if how == "product":
                w.push_product(*factors(0, number), rule={"rate": rate, "momentum": 0.5})
            else:
                keys = range(ROWS) if how == "range" else np.arange(ROWS)
                w.push(keys, gradients[number], rule={"rate": rate, "momentum": 0.5})
        return w.pull(range(ROWS), after=w.unfinished()).wait().tolist()

    job = run(program, table(rows=ROWS, width=WIDTH, rule=MOMENTUM), nodes=[0, 1, 2])
    values, velocity = np.zeros((ROWS, WIDTH)), np.zeros((ROWS, WIDTH))
    for gradient, rate in zip(gradients, (0.25, 0.75), strict=True):
        velocity = 0.5 * velocity - rate * (gradient + 0.01 * values)
        values += velocity
    assert np.allclose(job.results[0], values, atol=1e-4)


def test_what_can_not_be_pushed_is_refused_and_nothing_is_sent():
    def program(worker):
        w, sparse = worker.table("w"), worker.table("s")
        left, right = factors(0, 0)
        with pytest.raises(ShapeError, match=r"a product needs \(700, n\) and \(5, n\), got \(700, 3\) and \(5, 2\)"):
            w.push_product(left, right[:, :2])
        with pytest.raises(ShapeError, match="needs a dense table"):
            sparse.push_product(left, right)
        for which in (0, 1):
            bad = [left.copy(), right.copy()]
            bad[which][1, 1] = np.inf
            with pytest.raises(NonFiniteError, match="1 values are NaN or infinite"):
                w.push_product(*bad)
        other = {"rule": {"rat": 1.0}}
        with pytest.raises(RuleError, match='no parameter "rat"; did you mean "rate"'):
            w.push_product(left, right, **other)
        with pytest.raises(RuleError, match='no parameter "rat"; did you mean "rate"'):
            w.push([0], np.ones((1, WIDTH)), **other)
        return w.pushes

    tables = table(rows=ROWS, width=WIDTH, rule=MOMENTUM), table("s", kind="sparse", width=WIDTH)
    assert run(program, *tables, nodes=[0, 0, 0]).results == [0]


def test_pushes_that_are_aggregated_must_agree_on_the_rule():
    def program(worker):
        worker.table("w").push(range(ROWS), np.ones((ROWS, WIDTH)), rule={"rate": 0.1 * (1 + worker.index)}).wait()

    spec = table(rows=ROWS, width=WIDTH, rule=MOMENTUM, aggregate=True)
    outcome = run(program, spec, nodes=[0] * 4).outcome
    assert outcome.exit == "failed"
    assert 'table "w": step 1 has pushes with different rules' in outcome.reason


@pytest.mark.parametrize("place", ["one node", "nodes of their own"])
def test_products_count_once_when_their_server_dies(place, tmp_path, seed):
    def program(worker):
        for number in range(12):
            worker.table("w").push_product(*factors(worker.index, number))
            rest(worker._fabric, 5e-3)
        worker.settle()
        worker.sum(1.0).wait()
        return worker.table("w").pull(range(ROWS), consistent=True).wait().tolist()

    spec = table(rows=ROWS, width=WIDTH, rule={"name": "add"})
    roles = Roles(servers=3, data_servers=0, workers=2, spares=1)
    plan = program_plan(program, spec, roles=roles, replicas=1)
    job = SimulatedJob(plan, PLACES[place](7), seed, latency=SLOW)
    job.kill("server", 0.1)
    job.run()
    total = sum(left @ right.T for left, right in (factors(w, n) for w in range(2) for n in range(12)))
    assert np.allclose(job.results[0], total, atol=1e-3)


def test_a_server_reads_only_what_is_its_own_of_a_push_from_another_node():
    fetched = {}

    def program(worker):
        worker.table("w").push(range(2048), np.ones((2048, 64))).wait()
        return worker.table("w").traffic().sent

    spec = table(rows=2048, width=64)
    job = SimulatedJob(
        program_plan(program, spec, roles=Roles(servers=4, data_servers=0, workers=1)), [0, 1, 2, 3, 4, 5], 1
    )
    for fabric in job.simulation.ranks:

        def read(rank, offset, out, then, fabric=fabric, plain=fabric._read):
            fetched[fabric.rank] = fetched.get(fabric.rank, 0) + out.nbytes
            plain(rank, offset, out, then)

        fabric._read = read
    assert job.run().results == [2048 * 64 * 4]
    assert sum(fetched.values()) == 2048 * 64 * 4
    assert len(fetched) == 4
