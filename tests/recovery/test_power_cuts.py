"""Everything dies at once, at any moment, and the job goes on, on other ranks: from a generation that is whole and none
but the newest, with all that it says to be done, and without doing any of that again.
"""

import json
import os
import random

import numpy as np
import pytest

from mpips.checkpoint import Generation, generations
from mpips.checkpoint.folder import number
from mpips.dataserver.spec import DataSpec, TestSplit
from mpips.plan import Plan
from mpips.server.checkpoints import Checkpoints
from mpips.views.view import Roles
from mpips.worker.worker import Worker
from tests.recovery.invariants import content
from tests.simulated import FAST, PLACES, SMALL, SimulatedJob, libsvm, rest, table

ROWS, FEATURES, PASSES, PARTS, MOST = 200, 40, 3, 2, 64
TRAIN = ROWS * 4 // 5
LASTS = 0.15  # seconds that a job takes which nothing disturbs, about
LIVES, FILES_TOUCHED = 4, 40
fsync = os.fsync
TOUCHING = "replace", "fsync", "unlink", "mkdir", "rmdir", "truncate"
COURSES = 4


class PowerCut(BaseException):
    """Nothing goes on."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    libsvm(folder / "x.libsvm", ROWS, FEATURES, np.random.default_rng(7))
    libsvm(folder / "y.libsvm", ROWS, FEATURES, np.random.default_rng(8))
    return DataSpec(format="libsvm", files=("x.libsvm", "y.libsvm"), batch=8, test=TestSplit(every=5)), folder


class Train:
    """Counts every batch of every epoch by itself, and trains two tables whose rule has a state."""

    def __init__(self, worker):
        self.worker = worker
        self.key = 0

    def train(self, batch):
        rest(self.worker._fabric, 3e-3)
        self.worker.table("times").push([self.key], [1.0])
        for name in ("dense", "sparse"):
            self.worker.table(name).push(batch.keys, np.ones(batch.keys.size))
        return float(len(batch))

    def evaluate(self, batch, histogram):
        return 0.0


class Lives:
    """A job in a run folder that is cut off again and again.

    Attributes
    ----------
    consistency : of its generations.
    trained : of every life the batches that it has trained on, by their keys in the table "times".
    problems : what does not hold, in words.
    """

    def __init__(self, data, run, rng, monkeypatch):
        self.spec, self.base = data
        self.run, self.rng, self.patch = run, rng, monkeypatch
        self.consistency = rng.choice(("cut", "fuzzy"))
        self.trained = []
        self.problems = []
        self.restored = None
        self.cuts = 0
        self._dead = []  # what of them would end when it is forgotten must not touch the files of those after
        self._countdown = None
        train, restore = Worker._train_one, Checkpoints.restore

        def train_one(worker, algorithm, batch, workload, place):
            algorithm.key = ((workload.epoch - 1) * PARTS + workload.part) * MOST + place
            self.trained[-1].add(algorithm.key)
            return train(worker, algorithm, batch, workload, place)

        def restore_and_compare(checkpoints, path):
            restore(checkpoints, path)
            self.compare(checkpoints._tables, path)

        monkeypatch.setattr(Worker, "_train_one", train_one)
        monkeypatch.setattr(Checkpoints, "restore", restore_and_compare)
        for name in TOUCHING:
            monkeypatch.setattr(os, name, self._counting(getattr(os, name)))

    def _counting(self, function):
        """Cut the power off before or after a file is touched for the n-th time."""

        def touch(*arguments, **more):
            self._touched()
            done = function(*arguments, **more) if function is not fsync else None  # what is simulated outlives it all
            self._touched()
            return done

        return touch

    def _touched(self):
        if self._countdown is not None:
            self._countdown -= 1
            if self._countdown < 0:
                raise PowerCut

    def compare(self, tables, path):
        """Servers have what is in the generation: values, and states of rules."""
        with Generation(path) as generation:
            for shards in tables:
                spec = shards.spec
                for shard in shards.held:
                    if spec.kind == "dense":
                        saved = [
                            np.arange(*spec.shard_range(shard)),
                            *generation.dense(spec.name, *spec.shard_range(shard)),
                        ]
                    else:
                        blocks = [*generation.sparse(spec.name, [shard])]
                        saved = [np.concatenate(column) for column in zip(*blocks, strict=True)] if blocks else None
                    if saved is None:
                        same = content(shards, shard)[0].size == 0
                    else:
                        order = np.argsort(saved[0])
                        same = all(
                            np.array_equal(mine, its[order])
                            for mine, its in zip(content(shards, shard), saved, strict=True)
                        )
                    if not same:
                        self.problems.append(f'shard {shard} of "{spec.name}" was not restored from {path}')

    def live(self, last):
        """A life of the job, on ranks of its own; whether it came to its end."""
        rng, masters = self.rng, generations(self.run)
        done = self.done(masters[0]) if masters else set()
        roles = Roles(
            servers=rng.randint(1, 4), data_servers=PARTS, workers=rng.randint(1, 3), spares=rng.choice((0, 0, 1))
        )
        plan = Plan(
            program=lambda worker: worker.train(Train(worker)),
            tables=lambda features: [
                table("times", rows=PASSES * PARTS * MOST),
                table("dense", rows=features, rule={"name": "adagrad", "alpha": 0.5}),
                table("sparse", kind="sparse", rows=300, rule={"name": "ftrl", "alpha": 0.5}),
            ],
            roles=roles,
            data=self.spec,
            base=self.base,
            passes=PASSES,
            evaluate_every=rng.choice((0, 1)),
            delay=rng.choice((0, 3, None)),
            run=self.run,
            saves=True,
            save_every=rng.choice((0.005, 0.01, 0.03)),
            keep=rng.choice((1, 2, 3)),
            consistency=self.consistency,
            replicas=rng.choice((0, 1, 2)),
            memory=SMALL,
            threads=1,
        )
        place = PLACES[rng.choice(list(PLACES))](1 + roles.servers + PARTS + roles.workers + roles.spares)
        job = SimulatedJob(
            plan, place, rng.randrange(1 << 30), resume=bool(masters), latency=rng.choice((FAST, (1e-4, 1e-3)))
        )
        self._dead.append(job)
        if rng.random() < 0.7:
            job.simulation.linger(0.0, rng.choice((1e-4, 5e-3)))
        self.trained.append(set())
        (self.run / "metrics.jsonl").unlink(missing_ok=True)
        if not last and rng.random() < 0.5:
            job.simulation.at(rng.uniform(0.0, LASTS), self._cut)
        elif not last:
            self._countdown = rng.randint(0, 2 * FILES_TOUCHED)
        try:
            job.run(40.0)
        except PowerCut:
            self.cuts += 1
        finally:
            self._countdown = None
        self.look_at(job, masters, done)
        return job.outcomes and job.outcome.exit == "finished"

    @staticmethod
    def _cut():
        raise PowerCut

    def done(self, master):
        """The batches that a generation says to be done; they must be in it."""
        with Generation(master) as generation:
            generation.verify(deep=True)
            progress, times = generation.progress, generation.dense("times", 0, PASSES * PARTS * MOST)[0]
        found = set()
        for part, (batches, _) in enumerate(progress["batches"]):
            for epoch in range(1, PASSES + 1):
                bits = np.full(batches, epoch <= progress["epochs"])
                if str(epoch) in progress["done"]:
                    saved = np.frombuffer(bytes.fromhex(progress["done"][str(epoch)][part]), np.uint8)
                    bits |= np.unpackbits(saved)[:batches].astype(bool)
                found |= {((epoch - 1) * PARTS + part) * MOST + place for place in np.flatnonzero(bits).tolist()}
        missing = [key for key in found if times[key, 0] < 1]
        if missing:
            self.problems.append(f"{master} says that {missing} are done, but does not contain them")
        return found

    def look_at(self, job, before, done):
        """What a life that was cut off has left, and that it has done nothing again."""
        again = self.trained[-1] & done
        if again:
            self.problems.append(f"life {len(self.trained)} has done again what was done: {sorted(again)}")
        log = self.run / "metrics.jsonl"
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        masters = generations(self.run)
        newest = number(masters[0]) if masters else 0
        said = [event["generation"] for event in events if event["event"] in ("checkpoint", "restored")]
        if newest < max(said, default=0):
            self.problems.append(f"the newest generation is {newest}, {said} were said to be there")
        restored = [event["generation"] for event in events if event["event"] == "restored"]
        if restored and restored != [number(before[0])]:
            self.problems.append(f"generation {restored} was restored, {before[0]} was the newest")
        for master in masters:
            self.done(master)


@pytest.mark.parametrize("course", range(COURSES))
def test_whatever_the_moment_a_job_goes_on_from_its_newest_generation(data, tmp_path, monkeypatch, seed, course):
    rng = random.Random(f"{seed} {course}")
    lives = Lives(data, tmp_path / "run", rng, monkeypatch)
    finished = any(lives.live(last=False) for _ in range(LIVES)) or lives.live(last=True)
    monkeypatch.undo()
    assert not lives.problems
    assert finished
    with Generation(generations(tmp_path / "run")[0]) as generation:
        times = generation.dense("times", 0, PASSES * PARTS * MOST)[0][:, 0]
    batches = -(-TRAIN // 8)
    keys = [part * MOST + batch for part in range(PASSES * PARTS) for batch in range(batches)]
    tried = np.array([sum(key in trained for trained in lives.trained) for key in range(times.size)])
    assert (times[keys] >= 1).all()
    assert (times <= tried).all()
    assert lives.consistency == "fuzzy" or (times[keys] == 1).all()
    assert lives.cuts > 0
