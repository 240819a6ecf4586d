"""The job file: what is read from it, and what is said about every mistake in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpips.algorithms.settings import BlockSettings
from mpips.filters import FILTERS
from mpips.job import Job, JobFileError, load
from mpips.plan import Scale
from mpips.program import PROGRAMS
from mpips.start import plan_of

GOOD = """\
[roles]
servers = 1

[data]
format = "csv"
files = ["flights.csv", "more*.csv"]
label = "arr_delay > 15"
test = { every = 5, offset = 4 }
[data.features]
keys = { hash_bits = 22 }
fields = ["carrier", ["carrier", "flight"]]

[tables.w]
rows = "features"
rule = { name = "ftrl", alpha = 0.1 }

[algorithm]
name = "linear"
table = "w"
passes = 10
"""
LINES = GOOD.splitlines()


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(LINES, 1) if line.startswith(text))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("flights.csv", "more1.csv"):
        (tmp_path / name).write_text("carrier,flight,arr_delay\nUA,1,3\n")
    return tmp_path


def job_of(text: str, *overrides: str) -> Job:
    Path("x.toml").write_text(text)
    return load("x.toml", overrides)


def mistakes_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        job_of(text, *overrides)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return caught.value.mistakes


def test_good_file_is_read_with_its_defaults(folder: Path) -> None:
    job = job_of(GOOD)
    assert job.roles.servers == 1
    assert job.roles.workers is None
    assert job.data.files == ("flights.csv", "more*.csv")
    assert job.algorithm.passes == 10
    assert job.consistency.delay == "auto"
    assert job.base == folder
    assert job.text == GOOD
    assert job.run_folder == folder / "checkpoints" / "x"


@pytest.mark.usefixtures("folder")
def test_table_takes_its_rows_from_the_data() -> None:
    table = job_of(GOOD).tables["w"].spec("w", 1234)
    assert (table.name, table.rows, table.slots) == ("w", 1234, 2)
    assert job_of(GOOD, "tables.w.rows=7").tables["w"].spec("w", 1234).rows == 7


def test_run_folder_is_relative_to_the_current_folder(folder: Path) -> None:
    assert job_of(GOOD, "checkpoint.folder=here/run").run_folder == folder / "here" / "run"
    assert job_of(GOOD, "checkpoint.folder=/there").run_folder == Path("/there")


def test_data_are_relative_to_the_job_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "x.toml").write_text(GOOD)
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load(folder / "x.toml").base == folder


@pytest.mark.usefixtures("folder")
class TestMistakes:
    def test_unknown_key_is_placed_and_the_nearest_named(self) -> None:
        text = GOOD.replace("rule =", "rul =")
        assert mistakes_of(text) == [f'x.toml:{line_of("rule")}: tables.w.rul: unknown key; did you mean "rule"?']

    def test_every_mistake_is_reported_at_once_in_the_files_order(self) -> None:
        text = (
            GOOD.replace("servers = 1", "servers = 0")
            .replace('"arr_delay', '5 # "')
            .replace("22", "99")
            .replace('"ftrl"', '"frtl"')
            .replace('table = "w"', 'table = "v"')
            .replace("passes", "pases")
        )
        assert mistakes_of(text) == [
            "x.toml:2: roles.servers: must be a whole number ≥ 1, got 0",
            "x.toml:7: data.label: must be a text of length ≥ 1, got 5",
            "x.toml:10: data.features.keys.hash_bits: must be a whole number ≥ 1 and ≤ 63, got 99",
            'x.toml:15: tables.w.rule: update rule "frtl" does not exist; did you mean "ftrl"?',
            'x.toml:19: algorithm.table: there is no table "v"; valid here: w',
            'x.toml:20: algorithm.pases: unknown key; did you mean "passes"?',
        ]

    def test_missing_key_is_placed_at_its_table(self) -> None:
        text = GOOD.replace('rows = "features"', "")
        expected = 'tables.w.rows: is missing; it must be a whole number ≥ 1 or "features"'
        assert mistakes_of(text) == [f"x.toml:{line_of('[tables.w]')}: {expected}"]

    def test_missing_section_is_named(self) -> None:
        text = GOOD[: GOOD.index("[algorithm]")]
        assert mistakes_of(text) == ["x.toml: algorithm: is missing; it must be a table"]

    def test_misspelt_word_of_a_choice_gets_the_nearest(self) -> None:
        text = GOOD.replace('"csv"', '"cvs"', 1)
        assert mistakes_of(text) == ['x.toml:5: data.format: unknown name "cvs"; did you mean "csv"?']

    def test_element_of_an_array_over_several_lines_is_placed(self) -> None:
        text = GOOD.replace('["carrier", ["carrier", "flight"]]', '[\n  "carrier",\n\n  ["carrier", 7],\n]')
        assert mistakes_of(text) == ["x.toml:14: data.features.fields[1][1]: must be a text of length ≥ 1, got 7"]

    def test_rule_of_a_whole_section_is_checked(self) -> None:
        text = GOOD.replace("offset = 4", "offset = 5")
        (mistake,) = mistakes_of(text)
        assert mistake.startswith("x.toml:8: data.test: offset must be below every")

    def test_not_a_number_is_refused(self) -> None:
        assert mistakes_of(GOOD, "checkpoint.every=nan") == [
            "--set checkpoint.every=nan: checkpoint.every: must be a number, got nan"
        ]

    def test_text_that_is_not_toml_is_placed(self) -> None:
        assert mistakes_of(GOOD + "a = = 3\n") == ["x.toml:21: not TOML: Invalid value"]
        (mistake,) = mistakes_of(GOOD + "a = [1,\n")
        assert mistake.startswith("x.toml:2")

    def test_files_that_are_missing_empty_or_unmatched_are_named(self, folder: Path) -> None:
        Path("more2.csv").write_text("")
        text = GOOD.replace('"flights.csv"', '"flihts.csv", "other*.csv"')
        assert mistakes_of(text) == [
            f"x.toml:6: data.files[0]: {folder}/flihts.csv: no such file",
            f'x.toml:6: data.files[1]: no file matches "other*.csv" in {folder}',
            f"x.toml:6: data.files[2]: {folder}/more2.csv: is empty",
        ]

    def test_job_file_that_is_missing_is_said_with_the_nearest(self) -> None:
        Path("flights.toml").write_text("")
        with pytest.raises(JobFileError, match=r'fligths\.toml: there is no such.*did you mean "flights\.toml"'):
            load("fligths.toml")

    def test_job_file_that_is_not_text_is_refused(self) -> None:
        Path("x.toml").write_bytes(b"\x1f\x8b\xff\x00")
        with pytest.raises(JobFileError, match="is not UTF-8"):
            load("x.toml")


@pytest.mark.usefixtures("folder")
class TestOverrides:
    def test_value_is_toml_or_else_a_text(self) -> None:
        job = job_of(
            GOOD, "roles.workers=2", "data.files=['flights.csv']", "checkpoint.folder=my/run", "checkpoint.every=1.5"
        )
        assert job.roles.workers == 2
        assert job.data.files == ("flights.csv",)
        assert job.checkpoint.folder == "my/run"
        assert job.checkpoint.every == 1.5
        assert job.overrides[0] == "roles.workers=2"

    def test_later_one_wins(self) -> None:
        assert job_of(GOOD, "algorithm.passes=2", "algorithm.passes=3").algorithm.passes == 3

    def test_mistake_in_it_is_placed_there(self) -> None:
        overrides = ["roles.wrkers=2", "tables.v.kind='sparse'", "tables.w.rul.a=1"]
        found = mistakes_of(GOOD.replace("passes", "pases"), *overrides)
        assert found == [
            '--set roles.wrkers=2: roles.wrkers: unknown key; did you mean "workers"?',
            '--set tables.w.rul.a=1: tables.w.rul: unknown key; did you mean "rule"?',
            "--set tables.v.kind='sparse': tables.v.rows: is missing; it must be a whole number ≥ 1 or \"features\"",
            'x.toml:20: algorithm.pases: unknown key; did you mean "passes"?',
        ]

    @pytest.mark.parametrize("text", ["roles", "=3", "a..b=1", "a b=1", "a=1\nb=2=3"])
    def test_text_that_is_no_key_and_value_is_refused(self, text: str) -> None:
        assert any(text in mistake for mistake in mistakes_of(GOOD, text))

    def test_value_inside_something_that_is_no_table_is_refused(self) -> None:
        (mistake,) = mistakes_of(GOOD, "algorithm.passes.x=1")
        assert mistake == "--set algorithm.passes.x=1: algorithm.passes is not a table"


@pytest.mark.usefixtures("folder")
class TestPythonFile:
    RULE = "import mpips\nfrom typing import NamedTuple\nfrom mpips.rule import update_rule\n" + (
        "class Twice(NamedTuple):\n    rate: float = 2.0\n@update_rule(Twice)\n"
        "def twice(rule, value, update, state):\n    return value + rule.rate * update\n"
    )

    def test_rules_that_it_registers_can_be_used(self) -> None:
        Path("rules.py").write_text(self.RULE)
        text = 'python = "rules.py"\n' + GOOD.replace('"ftrl", alpha', '"twice", rate')
        assert job_of(text).tables["w"].rule == {"name": "twice", "rate": 0.1}

    def test_error_in_it_is_placed(self, folder: Path) -> None:
        Path("wrong.py").write_text("a = 1\nb = a / 0\n")
        text = 'python = "wrong.py"\n' + GOOD
        assert mistakes_of(text) == [f"x.toml:1: python: {folder}/wrong.py:2: ZeroDivisionError: division by zero"]

    def test_file_that_is_missing_is_said(self, folder: Path) -> None:
        text = 'python = "none.py"\n' + GOOD
        assert mistakes_of(text) == [f"x.toml:1: python: {folder}/none.py can't be read: No such file or directory"]


SOLVER = (
    GOOD.replace('"ftrl", alpha = 0.1 }', '"proximal", l1 = 1.0 }\naggregate = true')
    + """solver = "block"
[algorithm.block]
blocks = 8
order = "cyclic"
tolerance = 1e-4
"""
)


def at(text: str, start: str) -> str:
    """File and line of what begins so, as a mistake there has it."""
    return f"x.toml:{next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))}"


@pytest.mark.usefixtures("folder")
class TestSolver:
    def test_its_settings_are_read(self) -> None:
        algorithm = job_of(SOLVER).algorithm
        assert algorithm.solver == "block"
        assert algorithm.block == BlockSettings(blocks=8, order="cyclic", tolerance=1e-4)
        assert job_of(SOLVER).tables["w"].spec("w", 9).inputs == 2

    def test_without_settings_it_has_its_defaults_and_another_solver_has_none(self) -> None:
        assert job_of(SOLVER[: SOLVER.index("[algorithm.block]")]).algorithm.block is None
        assert job_of(GOOD).algorithm.solver == "online"

    def test_the_share_after_which_an_epoch_is_over_is_read_and_checked(self, folder: Path) -> None:
        (folder / "x.toml").write_text(GOOD)
        assert plan_of(folder / "x.toml", []).epoch_share == 1.0
        assert plan_of(folder / "x.toml", ["algorithm.epoch_share=0.75"]).epoch_share == 0.75
        for wrong in (0, 1.5):
            with pytest.raises(JobFileError, match=r"algorithm\.epoch_share: must be a number > 0 and ≤ 1"):
                job_of(GOOD, f"algorithm.epoch_share={wrong}")

    def test_a_job_of_it_keeps_its_rows(self, folder: Path) -> None:
        (folder / "x.toml").write_text(SOLVER)
        plan = plan_of(folder / "x.toml", ["algorithm.passes=7"])
        assert plan.keeps_rows
        assert plan.passes == 7
        (folder / "x.toml").write_text(GOOD)
        assert not plan_of(folder / "x.toml", []).keeps_rows

    @pytest.mark.parametrize(
        ("old", "new", "line", "said"),
        [
            (
                '"block"\n',
                '"blok"\n',
                "solver",
                'algorithm.solver: unknown name "blok"; did you mean "block"?',
            ),
            (
                'solver = "block"',
                'solver = "block"\nepoch_share = 0.5',
                "epoch_share",
                'algorithm.epoch_share: is for the solver "online": the other looks at all rows',
            ),
            ("blocks = 8", "blocks = 0", "blocks", "algorithm.block.blocks: must be a whole number ≥ 1, got 0"),
            (
                '"cyclic"',
                '"cylic"',
                "order",
                'algorithm.block.order: unknown name "cylic"; did you mean "cyclic"?',
            ),
            ("1e-4", "-1.0", "tolerance", "algorithm.block.tolerance: must be a number ≥ 0, got -1.0"),
            ("order", "odrer", "odrer", 'algorithm.block.odrer: unknown key; did you mean "order"?'),
            (
                "aggregate = true",
                "",
                "[tables.w]",
                'tables.w.aggregate: the solver "block" needs aggregate = true',
            ),
            (
                "aggregate = true",
                "aggregate = 1",
                "aggregate",
                "tables.w.aggregate: must be true or false, got 1",
            ),
            (
                'rows = "features"',
                'rows = "features"\nkind = "sparse"',
                "kind",
                'tables.w.kind: the solver "block" needs a dense table',
            ),
            (
                '"proximal", l1',
                '"ftrl", l1',
                "rule",
                'tables.w.rule: the solver "block" needs the rule "proximal", got "ftrl"',
            ),
            ("l1 = 1.0", "l3 = 1.0", "rule", 'tables.w.rule: update rule "proximal" has no parameter "l3"'),
        ],
    )
    def test_mistake_is_placed(self, old: str, new: str, line: str, said: str) -> None:
        text = SOLVER.replace(old, new)
        assert text != SOLVER
        (mistake,) = mistakes_of(text)
        assert mistake.startswith(f"{at(text, line)}: {said}")

    def test_its_settings_and_its_rule_are_for_it_alone(self) -> None:
        text = SOLVER.replace('solver = "block"\n', "")
        assert mistakes_of(text) == [f'{at(text, "[algorithm.block]")}: algorithm.block: is for solver = "block"']
        text = GOOD.replace('"ftrl", alpha = 0.1', '"proximal"')
        said = 'tables.w.rule: the rule "proximal" is for the solver "block"'
        assert mistakes_of(text) == [f"{at(text, 'rule')}: {said}"]


@pytest.mark.usefixtures("folder")
class TestConsistency:
    @pytest.mark.parametrize(
        ("text", "delay", "bound"),
        [("0", 0, 0), ("16", 16, 16), ('"auto"', "auto", "auto"), ('"eventual"', "eventual", None)],
    )
    def test_delay_is_a_number_or_a_word(self, text: str, delay: object, bound: object) -> None:
        consistency = job_of(GOOD + f"[consistency]\ndelay = {text}\n").consistency
        assert consistency.delay == delay
        assert consistency.bound == bound

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("-1", 'must be a whole number ≥ 0 or "auto" or "eventual", got -1'),
            ("1.5", 'must be a whole number ≥ 0 or "auto" or "eventual", got 1.5'),
            ('"eventaul"', 'unknown name "eventaul"; did you mean "eventual"?'),
        ],
    )
    def test_other_delay_is_refused(self, text: str, said: str) -> None:
        text = GOOD + f"[consistency]\ndelay = {text}\n"
        assert mistakes_of(text) == [f"{at(text, 'delay')}: consistency.delay: {said}"]


@pytest.mark.usefixtures("folder")
class TestRecovery:
    def test_without_a_section_there_is_one_copy_and_unlimited_patience(self, folder: Path) -> None:
        job_of(GOOD)
        plan = plan_of(folder / "x.toml", [])
        assert (plan.replicas, plan.on_worker_loss, plan.patience, plan.copy_share) == (1, "replace", None, 0.1)

    def test_it_reaches_the_plan(self, folder: Path) -> None:
        text = GOOD.replace("servers = 1", "servers = 3") + (
            '[recovery]\nreplicas = 2\non_worker_loss = "ignore"\npatience = 5\ncopy_share = 0.5\n'
        )
        job_of(text)
        plan = plan_of(folder / "x.toml", [])
        assert (plan.replicas, plan.on_worker_loss, plan.patience, plan.copy_share) == (2, "ignore", 5.0, 0.5)

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("replicas = -1", "must be a whole number ≥ 0, got -1"),
            ("repplicas = 1", 'unknown key; did you mean "replicas"?'),
            ('on_worker_loss = "replaced"', 'unknown name "replaced"; did you mean "replace"?'),
            ('on_worker_loss = "wait"', 'must be "replace", "redistribute" or "ignore", got "wait"'),
            ("patience = 0", 'must be a number > 0 or "never", got 0'),
            ('patience = "nevr"', 'unknown name "nevr"; did you mean "never"?'),
            ("copy_share = 1.5", "must be a number > 0 and ≤ 1, got 1.5"),
        ],
    )
    def test_mistake_is_placed(self, line: str, said: str) -> None:
        text = GOOD.replace("servers = 1", "servers = 2") + f"[recovery]\n{line}\n"
        assert mistakes_of(text) == [f"{at(text, line)}: recovery.{line.partition(' ')[0]}: {said}"]

    def test_patience_needs_copies_of_the_shards(self) -> None:
        text = GOOD + "[recovery]\npatience = 5.0\n"
        (mistake,) = mistakes_of(text)
        assert mistake.startswith(f"{at(text, 'patience')}: recovery.patience: needs roles.servers = 2 or more")
        (mistake,) = mistakes_of(text + "replicas = 0\n")
        assert mistake.startswith(f"{at(text, 'patience')}: recovery.patience: needs replicas = 1 or more")
        assert job_of(text, "roles.servers=2").recovery.limit == 5.0

    def test_rows_that_workers_keep_can_not_be_redistributed(self) -> None:
        text = SOLVER + '[recovery]\non_worker_loss = "redistribute"\n'
        said = 'recovery.on_worker_loss: the solver "block" needs "replace" or "ignore"'
        (mistake,) = mistakes_of(text)
        assert mistake.startswith(f"{at(text, 'on_worker_loss')}: {said}")


@pytest.mark.usefixtures("folder")
class TestPlannedSizes:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [('"90 s"', 90.0), ('"5 min"', 300.0), ('"1.5h"', 5400.0), ("12", 12.0), ("0.5", 0.5), ('"7"', 7.0)],
    )
    def test_time_is_read_in_seconds(self, text: str, seconds: float) -> None:
        assert job_of(GOOD + f"[[plan]]\nat = {text}\nservers = 3\n").scales == (Scale(at=seconds, servers=3),)

    def test_they_reach_the_plan_in_their_order(self, folder: Path) -> None:
        job_of(GOOD + "[[plan]]\nepoch = 3\nworkers = 4\n[[plan]]\nat = '90 s'\nservers = 3\nworkers = 2\n")
        expected = (Scale(epoch=3, workers=4), Scale(at=90.0, servers=3, workers=2))
        assert plan_of(folder / "x.toml", []).scales == expected

    def test_every_mistake_is_placed_in_its_entry(self) -> None:
        text = GOOD + (
            "[[plan]]\nservers = 3\n"
            "[[plan]]\nat = 1\nepoch = 2\nworkers = 1\n"
            "[[plan]]\nat = 2\n"
            "[[plan]]\nat = '90 sec'\nservers = 2\n"
            "[[plan]]\nat = 3\nservers = 0\n"
            "[[plan]]\nat = 3\nserver = 1\n"
        )
        when = 'must say when: at = "90 s" or epoch = 3'
        what = "must say what changes: servers = 3, workers = 4 or both"
        assert mistakes_of(text) == [
            f"x.toml:21: plan[0]: {when}",
            f"x.toml:23: plan[1]: {when}",
            f"x.toml:27: plan[2]: {what}",
            'x.toml:30: plan[3].at: must be a time like "90 s", "5 min" or "2 h", got \'90 sec\'',
            "x.toml:34: plan[4].servers: must be a whole number ≥ 1, got 0",
            'x.toml:37: plan[5].server: unknown key; did you mean "servers"?',
        ]

    def test_an_epoch_that_never_comes_is_refused(self) -> None:
        text = GOOD + "[[plan]]\nepoch = 11\nservers = 2\n"
        said = "plan[0].epoch: must be at most algorithm.passes, which is 10; got 11"
        assert mistakes_of(text) == [f"{at(text, 'epoch')}: {said}"]

    def test_workers_that_keep_their_rows_stay_as_many_as_they_are(self) -> None:
        text = SOLVER + "[[plan]]\nepoch = 2\nworkers = 3\n"
        epoch, workers = mistakes_of(text)
        assert epoch.startswith(f'{at(text, "epoch")}: plan[0].epoch: is not for the solver "block"')
        assert workers.startswith(f'{at(text, "workers")}: plan[0].workers: is not for the solver "block"')
        assert job_of(SOLVER + "[[plan]]\nat = 5\nservers = 3\n").scales == (Scale(at=5.0, servers=3),)


@pytest.mark.usefixtures("folder")
class TestFilters:
    def text(self, push: str = "", pull: str = "") -> str:
        return GOOD.replace("[algorithm]", f"push_filters = [{push}]\npull_filters = [{pull}]\n\n[algorithm]")

    def test_they_reach_the_table_in_their_order(self) -> None:
        text = self.text(
            '{ name = "kkt", tolerance = 0.1 }, { name = "quantise", bytes = 1 }, { name = "compression" }',
            '{ name = "key_cache" }',
        )
        table = job_of(text).tables["w"].spec("w", 9)
        assert table.push_filters == [
            {"name": "kkt", "tolerance": 0.1},
            {"name": "quantise", "bytes": 1},
            {"name": "compression"},
        ]
        assert table.pull_filters == [{"name": "key_cache"}]

    @pytest.mark.parametrize(
        ("filters", "said"),
        [
            ('{ name = "quantize" }', 'filter "quantize" does not exist; did you mean "quantise"?'),
            ('{ name = "quantise", bytes = 5 }', 'filter "quantise": bytes: must be a whole number ≥ 1 and ≤ 4, got 5'),
            ('{ name = "quantise", byte = 1 }', 'filter "quantise": byte: unknown key; did you mean "bytes"?'),
            (
                '{ name = "compression" }, { name = "key_cache" }',
                'filter "key_cache" must come before "compression", after which there are no keys to read',
            ),
        ],
    )
    @pytest.mark.parametrize("direction", ["push", "pull"])
    def test_mistake_is_placed(self, direction: str, filters: str, said: str) -> None:
        text = self.text(**{direction: filters})
        place = f"{at(text, f'{direction}_filters')}: tables.w.{direction}_filters"
        assert mistakes_of(text) == [f"{place}: {said}"]

    @pytest.mark.parametrize("name", ["kkt", "random_skip"])
    def test_filter_that_is_not_for_pulls_is_refused_there(self, name: str) -> None:
        text = self.text(pull=f'{{ name = "{name}" }}')
        said = f'filter "{name}" does not work on a pull; remove it there'
        assert mistakes_of(text) == [f"{at(text, 'pull_filters')}: tables.w.pull_filters: {said}"]

    @pytest.mark.parametrize("direction", ["push", "pull"])
    def test_what_is_no_filter_is_refused(self, direction: str) -> None:
        text = self.text(**{direction: '"zeros"'})
        place = f"{at(text, f'{direction}_filters')}: tables.w.{direction}_filters"
        assert mistakes_of(text) == [f'{place}[0]: must be a table, got "zeros"']
        text = text.replace('["zeros"]', '"zeros"')
        assert mistakes_of(text) == [f'{place}: must be an array, each a table, got "zeros"']


@pytest.mark.usefixtures("folder")
class TestGroups:
    def test_they_are_read(self) -> None:
        groups = job_of(GOOD + '[groups.eye]\nprogram = "watch"\n[groups.two]\nprogram = "watch"\nworkers = 2\n').groups
        assert {name: (group.program, group.workers) for name, group in groups.items()} == {
            "eye": ("watch", 1),
            "two": ("watch", 2),
        }

    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ('[groups.eye]\nprogram = "wach"\n', "program", 'there is no program "wach"; did you mean "watch"?'),
            ("[groups.eye]\nprogram = 3\n", "program", "must be a text, got 3"),
            ("[groups.eye]\nworkers = 2\n", "[groups.eye]", "is missing; it must be a text"),
        ],
    )
    def test_wrong_program_is_placed(self, text: str, line: str, said: str) -> None:
        assert mistakes_of(GOOD + text) == [f"{at(GOOD + text, line)}: groups.eye.program: {said}"]

    def test_a_group_without_workers_is_refused(self) -> None:
        text = GOOD + '[groups.eye]\nprogram = "watch"\nworkers = 0\n'
        assert mistakes_of(text) == [f"{at(text, 'workers')}: groups.eye.workers: must be a whole number ≥ 1, got 0"]


@pytest.mark.usefixtures("folder")
class TestOwnProgramsAndFilters:
    TEXT = "import mpips\nimport mpips.filters\n\n@mpips.program\ndef look(worker):\n    return worker.rank\n"
    FILTER = (
        '\n@mpips.filters.register("clip")\nclass Clip(mpips.filters.Filter):\n'
        "    def encode(self, packet):\n        return packet._replace(values=packet.values.clip(-1, 1))\n\n"
        "    def decode(self, packet):\n        return packet\n"
    )

    @pytest.fixture(autouse=True)
    def own(self) -> Iterator[None]:
        programs, filters = dict(PROGRAMS), dict(FILTERS)
        yield
        for registered, before in ((PROGRAMS, programs), (FILTERS, filters)):
            registered.clear()
            registered.update(before)  # type: ignore[arg-type]

    def test_the_python_file_may_define_both(self, folder: Path) -> None:
        Path("own.py").write_text(self.TEXT + self.FILTER)
        text = 'python = "own.py"\n' + GOOD.replace("[algorithm]", 'push_filters = [{ name = "clip" }]\n[algorithm]')
        text += '[groups.eye]\nprogram = "look"\nworkers = 2\n'
        assert job_of(text).tables["w"].push_filters == [{"name": "clip"}]
        group = plan_of(folder / "x.toml", []).groups["eye"]
        assert group.workers == 2
        assert group.program is PROGRAMS["look"]

    def test_without_the_file_they_do_not_exist(self) -> None:
        text = GOOD.replace("[algorithm]", 'push_filters = [{ name = "clip" }]\n[algorithm]')
        text += '[groups.eye]\nprogram = "look"\n'
        filters, program = mistakes_of(text)
        assert filters.startswith(f'{at(text, "push_filters")}: tables.w.push_filters: filter "clip" does not exist')
        assert program.startswith(f'{at(text, "program")}: groups.eye.program: there is no program "look"; ')

    def test_a_program_that_is_misspelt_gets_the_nearest_of_the_file(self) -> None:
        Path("near.py").write_text(self.TEXT)
        text = 'python = "near.py"\n' + GOOD + '[groups.eye]\nprogram = "lok"\n'
        said = 'groups.eye.program: there is no program "lok"; did you mean "look"?'
        assert mistakes_of(text) == [f"{at(text, 'program')}: {said}"]


@pytest.mark.parametrize("name", ["flights-lr.toml", "flights-l1.toml", "libsvm-lr.toml"])
def test_shipped_job_files_are_good(tmp_path: Path, name: str) -> None:
    text = (Path(__file__).parent.parent / "inputs" / name).read_text()
    (tmp_path / name).write_text(text)
    data = tmp_path / "rows"
    data.write_text("0 1:1\n")
    assert load(tmp_path / name, [f"data.files=['{data}']"]).algorithm.name == "linear"


@pytest.mark.usefixtures("folder")
class TestTrace:
    def text(self, keys: str, names: bool = True) -> str:
        text = GOOD.replace("{ hash_bits = 22 }", '"dictionary"') if names else GOOD
        return text.replace("[algorithm]", f"trace = {keys}\n\n[algorithm]")

    def test_keys_and_names_reach_the_plan(self) -> None:
        job_of(self.text('[3, "carrier=UA"]'))
        plan = plan_of(Path("x.toml"), [])
        assert plan.trace == {"w": [3, "carrier=UA"]}
        assert plan.traced_names == ["carrier=UA"]

    def test_names_of_features_that_have_none_are_refused(self) -> None:
        text = self.text('[3, "carrier=UA"]', names=False)
        said = 'must be a key, a whole number: features of these data have no names; got "carrier=UA"'
        assert mistakes_of(text) == [f"{at(text, 'trace')}: tables.w.trace[1]: {said}"]

    def test_what_is_no_key_is_refused(self) -> None:
        text = self.text("[-1, 2.5]")
        assert [mistake.partition(": must")[0] for mistake in mistakes_of(text)] == [
            f"{at(text, 'trace')}: tables.w.trace[{index}]" for index in (0, 1)
        ]
