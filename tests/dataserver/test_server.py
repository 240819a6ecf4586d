"""Data servers that die, at any time: every worker still gets every batch, with the same numbers."""

import msgspec
import numpy as np
import pytest

from mpips.dataserver.batch import Batch
from mpips.dataserver.dictionary import Dictionary
from mpips.dataserver.names import NAMES_FILE
from mpips.dataserver.server import DataServer
from mpips.dataserver.source import prepare
from mpips.fabric.sim import Simulation
from mpips.messages import (
    BatchReady,
    BatchRequest,
    BatchTaken,
    DataReady,
    DictionaryPart,
    DictionaryTaken,
    DictionaryWanted,
    DictionaryWhole,
    Failed,
    Finished,
    NewView,
    NoMoreWork,
    Note,
    Resumed,
    Stop,
    Traffic,
    Workload,
    WorkRequest,
)
from mpips.views.view import Roles, assign
from mpips.worker.batches import Batches
from tests.dataserver.reading import csv, libsvm, write
from tests.simulated import PLACES, SLOW, Tape, rest

ROWS = 240
QUIET = 20.0  # seconds after the last batch in which every message arrives


class Wire:
    """The scheduler's line, as plain messages to rank 0."""

    def __init__(self, fabric):
        self._fabric = fabric

    def tell(self, message):
        self._fabric.send(0, message)


class Course:
    """A stand-in for the scheduler that gives the parts of the dead to spares, or else to the data servers left;
    data servers; and workers that ask for every batch of every part, `rounds` times over.
    """

    def __init__(self, data, roles, place="one node", seed=1, arena=1 << 20, rounds=1, latency=SLOW, use=0.0, run=None):
        self.spec, self.base = data
        size = 1 + 1 + roles.data_servers + roles.workers + roles.spares
        nodes = PLACES[place](size)
        self.view = assign(nodes, roles)
        self.parts = len(self.view.parts)
        self.rounds, self.use, self.run_folder = rounds, use, run
        self.moves = []  # planned ones: when, and the parts from then on
        self.simulation = Simulation(nodes, [arena] * size, seed, latency)
        self.got = {rank: [] for rank in self.view.workers}  # what each worker got: part, batch, content, time
        self.ready, self.failures, self.resumed = [], [], []
        self.servers, self.hold = {}, {}
        self.tapes = {}

    def run(self, limit=1000.0):
        self.simulation.run(self._live, limit)
        return self

    def _live(self, fabric):
        try:
            self._take_part(fabric)
        except (AssertionError, ValueError):
            if fabric.rank not in self.view.lost:  # taken for dead, it reads what others may have overwritten
                raise

    def _take_part(self, fabric):
        fabric.patient = True
        over, early = [], []
        view = [self.view]
        wire = Wire(fabric)
        fabric.on(Stop, lambda source, message: over.append(source))
        roles = []
        for kind in (DictionaryPart, DictionaryWhole, BatchRequest, BatchReady):
            self.tapes[fabric.rank, kind] = Tape(fabric, kind)

        def take_roles():
            if fabric.rank in view[0].parts and fabric.rank not in self.servers:
                server = DataServer(fabric, view[0], wire, self.spec, self.base, self.run_folder, 1)
                self.servers[fabric.rank] = server
                roles.append(server)
                while early:
                    fabric.dispatch(*early.pop(0))

        def viewed(source, message):
            old, view[0] = view[0], message.view
            fabric.ignored = set(message.view.lost)
            for role in roles:
                role.viewed(old, message.view)
            take_roles()

        fabric.on(NewView, viewed)
        fabric.on_unknown = lambda source, message: early.append((source, message))
        if fabric.rank == 0:
            self._schedule(fabric)
        take_roles()
        if fabric.rank in view[0].workers:
            batches = Batches(fabric, view[0], wire)
            roles.append(batches)
            self._work(fabric, batches)
            wire.tell(Finished(None, 0.0, Traffic()))
        fabric.wait(lambda: bool(over), "the end", timeout=None)

    def _work(self, fabric, batches):
        for workload, number, batch in batches:
            arrays = batch.keys, batch.indices, batch.values, batch.labels
            content = [np.array(array) for array in arrays]
            rest(fabric, self.use)
            for array, before in zip(arrays, content, strict=True):
                assert np.array_equal(array, before), "a batch changed while it was used"
            self.got[fabric.rank].append((workload.part, number, content, fabric.now()))

    def _schedule(self, fabric):
        dead, done, asked, waiting = [], set(), {}, set()

        def answer():
            known = {message.part: message for _, message in self.ready}
            if len(known) == self.parts:
                for worker in sorted(waiting):
                    waiting.discard(worker)
                    turn = asked[worker] = asked.get(worker, -1) + 1
                    if turn == self.rounds * self.parts:
                        fabric.send(worker, NoMoreWork())
                    else:
                        part = (turn + worker) % self.parts
                        numbers = list(range(known[part].train + known[part].test))
                        fabric.send(worker, Workload(turn, 1, True, part, numbers, worker, 0))

        def data_ready(source, message):
            self.ready.append((source, message))
            answer()

        def hungry(source, message):
            waiting.add(source)
            answer()

        def lost(rank):
            dead.append(rank)
            view = self.view
            spares = [spare for spare in view.spares if spare not in dead]
            living = [server for server in view.data_servers if server not in dead]
            heirs = spares or living
            parts = [heirs[part % len(heirs)] if serves in dead else serves for part, serves in enumerate(view.parts)]
            spares = [spare for spare in spares if spare not in parts]
            self.view = msgspec.structs.replace(
                view, number=view.number + 1, parts=parts, spares=spares, lost=sorted(dead)
            )
            for other in range(fabric.size):
                fabric.send(other, NewView(self.view))
            settle()

        def change(parts):
            self.view = msgspec.structs.replace(self.view, number=self.view.number + 1, parts=parts)
            for other in range(fabric.size):
                fabric.send(other, NewView(self.view))

        for at, parts in self.moves:
            fabric._world.at(at, change, parts)

        def settle():
            if all(worker in done or worker in dead for worker in self.got):
                fabric._world.at(fabric.now() + QUIET, stop)

        def stop():
            for rank in range(fabric.size):
                fabric.send(rank, Stop("finished", ""))

        def finished(source, message):
            done.add(source)
            settle()

        fabric.on(DataReady, data_ready)
        fabric.on(WorkRequest, hungry)
        fabric.on(Finished, finished)
        fabric.on(Failed, lambda source, message: self.failures.append(message.reason))
        fabric.on(Note, lambda source, message: None)
        fabric.on(Resumed, lambda source, message: self.resumed.append((fabric.now(), source, message.number)))
        fabric.on_lost = lost

    def check(self, whole):
        """Every living worker got everything, and nobody holds anything."""
        story = self.simulation.story
        assert not self.failures, story
        gone = {*self.view.lost, *(fabric.rank for fabric in self.simulation.ranks if fabric.dead)}
        for worker in self.got.keys() - gone:
            got = self.got[worker]
            assert sorted((part, number) for part, number, _, _ in got) == sorted(list(whole) * self.rounds), story
            for part, number, content, _ in got:
                for array, expected in zip(content, whole[part, number], strict=True):
                    assert np.array_equal(array, expected), story
        first = {message.part: message for _, message in reversed(self.ready)}
        assert all(message == first[message.part] for _, message in self.ready), story
        for rank in self.servers.keys() - gone:
            server, arena = self.servers[rank], self.simulation.ranks[rank].arena.size
            assert not server._queue, story
            assert server._shelf.put("all", arena & -64, lambda out: None), story


def whole_of(data, parts):
    """Every batch of every part: keys, indices, values, labels."""
    spec, base = data
    read = [prepare(spec, base, part, parts) for part in range(parts)]
    names = Dictionary.merge([each.dictionary for each in read]) if spec.has_names else None
    whole = {}
    for part, prepared in enumerate(read):
        for number in range(prepared.train + prepared.test):
            blob = np.empty(prepared.size(number), np.uint8)
            prepared.read(number, 1, blob)
            batch = Batch.unpack(blob)
            keys = batch.keys if names is None else names.ids(batch.keys)
            whole[part, number] = keys, batch.indices, batch.values, batch.labels
        prepared.close()
    return whole


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Rows with names of features, of which each part lacks some."""
    folder = tmp_path_factory.mktemp("named")
    rng = np.random.default_rng(3)
    for file in range(3):
        lines = [f"{rng.integers(2)},{rng.choice(list('abcde'))}{file},{rng.integers(20)}" for _ in range(ROWS // 3)]
        write(folder, "y,carrier,hour\n" + "\n".join(lines) + "\n", f"x{file}.csv")
    spec = csv(folder, "y,carrier,hour\n1,z,1\n", "carrier", "hour", ["carrier", "hour"], name="x3.csv", batch=16)
    return msgspec.structs.replace(spec, files=("x0.csv", "x1.csv", "x2.csv", "x3.csv")), folder


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Rows whose features have numbers."""
    folder = tmp_path_factory.mktemp("numbered")
    rng = np.random.default_rng(4)
    for file in range(3):
        lines = [f"{i % 2} {rng.integers(9)}:1 {10 + rng.integers(90)}:{rng.random():.3f}" for i in range(ROWS // 3)]
        spec = libsvm(folder, "\n".join(lines) + "\n", f"x{file}.libsvm", batch=16)
    return msgspec.structs.replace(spec, files=("x*.libsvm",)), folder


@pytest.fixture(params=["named", "numbered"])
def data(request):
    return request.getfixturevalue(request.param)


def roles_of(data_servers, workers=2, spares=1):
    return Roles(servers=1, data_servers=data_servers, workers=workers, spares=spares)


@pytest.mark.parametrize("place", PLACES)
def test_without_faults_every_worker_gets_every_batch(data, place):
    course = Course(data, roles_of(3), place, rounds=2).run()
    course.check(whole_of(data, 3))
    assert sorted(message.part for _, message in course.ready) == [0, 1, 2]
    assert course.resumed == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spares", [0, 1])
def test_a_part_whose_data_server_dies_is_served_by_another(data, place, spares):
    course = Course(data, roles_of(2, spares=spares), place, rounds=3, use=0.01)
    dying = course.view.parts[0]
    course.simulation.kill(dying, 0.25)
    course.run().check(whole_of(data, 2))
    heir = course.view.parts[0]
    assert heir != dying
    assert [message.part for source, message in course.ready if source == heir][-1] == 0
    assert {number for _, _, number in course.resumed} == {2}
    assert max(time for time, _, _ in course.resumed) < 0.25 + 0.1


def test_the_only_data_server_dies_and_the_features_keep_their_numbers(data):
    course = Course(data, roles_of(1), rounds=3, use=0.01)
    course.simulation.kill(course.view.parts[0], 0.25)
    course.run().check(whole_of(data, 1))
    assert course.view.number == 2


def test_a_newcomer_takes_the_whole_dictionary_from_one_that_has_it(named):
    course = Course(named, roles_of(3), "two nodes", rounds=3, use=0.01)
    course.simulation.kill(course.view.parts[0], 0.25)
    course.run().check(whole_of(named, 3))
    heir = course.view.parts[0]
    assert course.tapes[heir, DictionaryPart].messages == []  # nobody had to say again what its part has
    assert {source for source, _ in course.tapes[heir, DictionaryWhole].messages} <= set(course.view.parts[1:])
    assert course.tapes[heir, DictionaryWhole].messages


def test_the_names_are_saved_also_when_the_first_to_have_them_dies_before(named, tmp_path):
    read = [prepare(*named, part, 2) for part in (0, 1)]
    whole = Dictionary.merge([each.dictionary for each in read])
    course = Course(named, roles_of(2, spares=0), run=tmp_path)
    course.simulation.kill(course.view.parts[0], 0.0005)
    course.run().check(whole_of(named, 2))
    assert [path.name for path in tmp_path.iterdir()] == [NAMES_FILE]
    saved = Dictionary.load(tmp_path / NAMES_FILE)
    assert saved.pack().tobytes() == whole.pack().tobytes()


def test_a_batch_on_this_node_is_used_to_its_end_though_its_data_server_is_dead(data):
    """A worker uses each batch for longer than a death needs to be seen."""
    course = Course(data, roles_of(1, workers=1), use=1.0)
    dying = course.view.parts[0]
    course.simulation.kill(dying, 0.5)
    course.run().check(whole_of(data, 1))
    (worker,) = course.got
    answers = course.tapes[worker, BatchReady].messages
    from_the_dead = [message.number for source, message in answers if source == dying]
    assert len(from_the_dead) == 3  # asked for ahead, and not asked for again
    assert not set(from_the_dead) & {message.number for source, message in answers if source != dying}


def test_a_rank_serves_its_part_while_it_reads_another_for_long(data):
    """Of two workers one is at each part when the data server of the second dies."""
    course = Course(data, roles_of(2, spares=0), use=0.05)
    course.simulation.kill(course.view.parts[1], 0.15)
    course.simulation.at(0.15, course.simulation.linger, 50.0, 50.0)
    course.run().check(whole_of(data, 2))
    times = {part: sorted(time for got in course.got.values() for p, _, _, time in got if p == part) for part in (0, 1)}
    batches = len(times[0]) // 2
    assert times[0][batches - 1] < 2.0
    assert times[1][0] < 0.5
    assert times[1][-1] > 50.0


def test_what_a_dead_worker_held_is_given_back(data):
    """There is room for a few batches; one that a dead worker kept would stop all."""
    whole = whole_of(data, 1)
    largest = max(sum(array.nbytes for array in arrays) for arrays in whole.values()) + 256
    names = 1 << 12  # the dictionary of so few rows
    course = Course(data, roles_of(1, workers=3), use=0.05, rounds=2, arena=4 * largest + names)
    for worker in list(course.got)[:2]:
        course.simulation.kill(worker, 0.3)
    course.run().check(whole)


@pytest.mark.parametrize("place", PLACES)
def test_a_part_may_move_to_another_rank_and_back_while_both_live(data, place):
    course = Course(data, roles_of(2), place, rounds=3, use=0.02)
    first, second = course.view.parts
    (spare,) = course.view.spares
    course.moves = [(0.2, [spare, second]), (0.5, [first, spare]), (0.8, [second, first]), (0.81, [first, second])]
    course.simulation.delay(0.3, 0.02)
    course.run().check(whole_of(data, 2))
    assert course.view.number == 5


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("at", ["kill_at_message", "kill_at_received"])
def test_a_data_server_may_die_at_any_message_of_the_merging(named, place, at):
    whole = whole_of(named, 3)
    for count in range(1, 25):
        for victim in (0, 1):
            course = Course(named, roles_of(3, 1, 0), place, seed=count)
            getattr(course.simulation, at)(course.view.parts[victim], count)
            course.run().check(whole)


@pytest.mark.parametrize("place", PLACES)
def test_names_that_fill_the_arena_find_room_and_the_next_to_need_them_may_die_as_well(named, place):
    whole = whole_of(named, 2)
    names = Dictionary.merge([prepare(*named, part, 2).dictionary for part in (0, 1)]).nbytes
    for count in range(1, 20):
        course = Course(named, roles_of(2, 3, 2), place, seed=count, arena=names + 64, rounds=2, use=0.1)
        course.simulation.kill(course.view.parts[0], 0.1 * count)
        if count % 2:
            course.simulation.kill_at_message(course.view.spares[0], count // 2)
        else:
            course.simulation.kill(course.view.spares[0], 0.1 * count + 0.08)
        course.run().check(whole)


def test_workers_that_hold_what_they_need_later_make_room_for_what_they_need_now(numbered):
    """The arena has room for two batches, and the two workers ask for three each."""
    whole = whole_of(numbered, 2)
    largest = max(sum(array.nbytes for array in arrays) for arrays in whole.values()) + 128
    for at in np.arange(0.1, 1.0, 0.03):
        course = Course(numbered, roles_of(2, 2, 0), rounds=2, arena=2 * largest, use=0.05)
        course.simulation.kill(course.view.parts[0], float(at))
        course.run().check(whole)


def test_a_request_that_comes_two_views_early_is_kept(numbered):
    """It comes before the view in which another rank has the part, which comes before the view in which this one has
    it.
    """
    spec, base = numbered
    simulation = Simulation([0, 0, 0], [1 << 20] * 3, 1)
    views = [
        msgspec.structs.replace(assign([0] * 3, Roles(data_servers=0)), number=number, parts=parts)
        for number, parts in enumerate([[1, 0], [1, 2], [1, 1]], 1)
    ]

    def live(fabric):
        if fabric.rank == 1:
            server = DataServer(fabric, views[0], Wire(fabric), spec, base, None, 1)
            fabric.dispatch(2, BatchRequest(7, 1, 0))
            server.viewed(views[0], views[1])
            server.viewed(views[1], views[2])
            rest(fabric, 1.0)
        elif fabric.rank == 2:
            tape = Tape(fabric, BatchReady)
            fabric.on(BatchReady, lambda source, message: None)
            rest(fabric, 1.0)
            return [(source, message.number) for source, message in tape.messages]
        else:
            fabric.on(DataReady, lambda source, message: None)
            rest(fabric, 1.0)
        return None

    assert simulation.run(live)[2] == [(1, 7)]


FAULTS = 60
OURS = [kind.__name__ for kind in (DictionaryWanted, DictionaryPart, DictionaryWhole, DictionaryTaken)]
OURS += [kind.__name__ for kind in (BatchRequest, BatchReady, BatchTaken, DataReady)]


def torment(course, rng):
    """Faults of all kinds that leave somebody to serve data, and a worker."""
    simulation, view = course.simulation, course.view
    able = [*view.data_servers, *view.spares]
    victims = rng.permutation(able)[: rng.integers(0, len(able))].tolist()
    victims += rng.permutation(view.workers)[: rng.integers(0, len(view.workers))].tolist()
    for rank in victims:
        kind = rng.choice(["kill", "kill_at_message", "kill_at_received", "mistake"])
        if kind == "kill":
            simulation.kill(rank, float(rng.exponential(0.3)))
        elif kind == "mistake":
            simulation.mistake(rank, float(rng.exponential(0.3)), float(rng.exponential(0.2)))
        else:
            getattr(simulation, kind)(rank, int(rng.geometric(0.05)))
    if rng.random() < 0.5:
        simulation.repeat(float(rng.uniform(0.0, 0.5)), OURS)
    if rng.random() < 0.5:
        simulation.delay(float(rng.uniform(0.0, 0.3)), 0.02)
    if rng.random() < 0.5:
        simulation.linger(0.0, float(rng.exponential(0.3)))
    if rng.random() < 0.3:
        simulation.pause(int(rng.choice(able)), float(rng.exponential(0.3)), float(rng.exponential(0.5)))


@pytest.mark.parametrize("place", PLACES)
def test_whatever_goes_wrong_every_living_worker_gets_every_batch_with_the_same_numbers(data, place, seed):
    wholes = {parts: whole_of(data, parts) for parts in (1, 2, 3)}
    rng = np.random.default_rng(seed)
    for _ in range(FAULTS):
        parts = int(rng.integers(1, 4))
        largest = max(sum(array.nbytes for array in arrays) for arrays in wholes[parts].values())
        arena = int(rng.choice([1 << 20, 8 * largest + (1 << 13)]))
        roles = roles_of(parts, int(rng.integers(1, 4)), int(rng.integers(0, 3)))
        course = Course(
            data, roles, place, int(rng.integers(1 << 30)), arena, rounds=2, use=float(rng.choice([0, 0.01]))
        )
        torment(course, rng)
        course.run().check(wholes[parts])
