"""Pictures of runs, from run folders made here."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from typer.testing import CliRunner, Result

from mpips.cli.history import HistoryError, read
from mpips.cli.pictures import MOST_SAMPLES, PictureError, figure, save
from mpips.cli.plot import plot
from mpips.cli.recovery_pictures import MOST_ROWS

START = {"time": 1000.0, "event": "start", "ranks": 6}
PROGRESS = [
    {"loss": 0.6, "delay": 4, "idle": 0.5, "sent": {"workers": 3_000, "servers": 1_000}},
    {"loss": 0.5, "delay": 4, "idle": 0.25, "sent": {"workers": 6_000, "servers": 2_000}},
    {"loss": 0.4, "delay": 8, "idle": 0.125, "sent": {"workers": 9_000, "servers": 3_000}},
]
RESULT = {
    "exit": "finished",
    "seconds": 4.25,
    "metrics": {"auc": 0.79312, "logloss": 0.436, "nonzeros": 12345},
    "traffic": {
        "workers": {"raw": 30_000, "sent": 9_000},
        "servers": {"raw": 10_000, "sent": 3_000},
        "filters": {"quantise": 4_000, "key_cache": 20_000},
    },
}
TIME_PANELS = ["loss", "delay (iterations)", "bytes sent", "time that workers wait"]


def progress(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"time": 1001.0 + i, "event": "progress", **more} for i, more in enumerate(fields)]


def objectives(values: list[float]) -> list[dict[str, Any]]:
    return [{"time": 1001.0 + i, "event": "report", "pass": i, "objective": value} for i, value in enumerate(values)]


def run_folder(path: Path, events: list[dict[str, Any]], result: dict[str, Any] | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in [START, *events]))
    if result is not None:
        (path / "result.json").write_text(json.dumps(result))
    return path


def drawn(*folders: Path) -> Figure:
    picture = figure([read(folder, folder.name) for folder in folders])
    picture.draw_without_rendering()  # what can't be laid out fails here
    return picture


def panel(picture: Figure, title: str) -> Axes:
    (found,) = [axes for axes in picture.axes if axes.get_title(loc="left").startswith(title)]
    return found


def points(axes: Axes) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.get_lines()]


def titles(picture: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in picture.axes]


def written_in(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


def typed(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(plot)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_the_picture_of_a_run_is_left_in_its_folder(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", progress(PROGRESS), RESULT)
    result = typed(run)
    assert result.stdout == f"wrote {run}/plot.png\nwrote {run}/plot.svg\n"
    assert result.stderr == ""
    assert (run / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (run / "plot.svg").read_text()
    typed(run, "--out", tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "plot.svg").read_bytes() == (run / "plot.svg").read_bytes()


def test_the_picture_of_several_runs_is_left_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        run_folder(tmp_path / name, progress(PROGRESS), RESULT)
    monkeypatch.chdir(tmp_path)
    said = typed("a", "b").stdout.splitlines()
    assert said[:2] == ["wrote plot.png", "wrote plot.svg"]
    heads, *runs = [line.split() for line in said[2:]]
    assert heads[:2] == ["run", "exit"]
    assert heads[-2:] == ["seconds", "examples/s"]
    assert [run[:2] for run in runs] == [["a", RESULT["exit"]], ["b", RESULT["exit"]]]
    assert all(len(run) > 3 for run in runs)  # its figures
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "plot.png", "plot.svg"]


def test_each_quantity_has_a_panel_over_seconds_since_the_start(tmp_path: Path) -> None:
    evaluations = [{"time": 1002.5, "event": "evaluation", "epoch": 1, "auc": 0.7, "logloss": 0.55}]
    picture = drawn(run_folder(tmp_path / "run", [*progress(PROGRESS), *evaluations], RESULT))
    assert titles(picture) == [*TIME_PANELS, "bytes saved by filters, of 40 kB in all"]
    training, test = points(panel(picture, "loss"))
    assert training == [(1.0, 0.6), (2.0, 0.5), (3.0, 0.4)]
    assert test == [(2.5, 0.55)]
    assert points(panel(picture, "delay")) == [[(1.0, 4.0), (2.0, 4.0), (3.0, 8.0)]]
    assert points(panel(picture, "bytes sent")) == [
        [(1.0, 3_000.0), (2.0, 6_000.0), (3.0, 9_000.0)],
        [(1.0, 1_000.0), (2.0, 2_000.0), (3.0, 3_000.0)],
    ]
    assert points(panel(picture, "time that workers wait")) == [[(1.0, 0.5), (2.0, 0.25), (3.0, 0.125)]]
    assert {axes.get_xlim() for axes in picture.axes[:4]} == {(0.0, 3.0)}
    assert [axes.get_xlabel() for axes in picture.axes] == ["", "", *["seconds since training began"] * 2, ""]


def test_ticks_have_units(tmp_path: Path) -> None:
    picture = drawn(run_folder(tmp_path / "run", progress(PROGRESS)))
    ticks = {title: [tick.get_text() for tick in panel(picture, title).get_yticklabels()] for title in TIME_PANELS}
    assert "2 kB" in ticks["bytes sent"]
    assert "20%" in ticks["time that workers wait"]
    assert ticks["delay (iterations)"] == ["0", "2", "4", "6", "8"]


def test_the_parts_of_a_quantity_are_named_where_their_curves_end(tmp_path: Path) -> None:
    bytes_sent = panel(drawn(run_folder(tmp_path / "run", progress(PROGRESS))), "bytes sent")
    assert {(text.get_text(), text.get_position()[1]) for text in bytes_sent.texts} == {
        ("workers", 9_000.0),
        ("servers", 3_000.0),
    }


def test_names_of_curves_that_end_close_together_keep_apart(tmp_path: Path) -> None:
    evaluations = [{"time": 1003.0, "event": "evaluation", "logloss": 0.4}]
    picture = drawn(run_folder(tmp_path / "run", [*progress(PROGRESS), *evaluations]))
    low, high = (text.get_window_extent() for text in panel(picture, "loss").texts)
    assert low.y1 <= high.y0 + 1e-6


def test_a_panel_without_data_is_left_out(tmp_path: Path) -> None:
    assert titles(drawn(run_folder(tmp_path / "run", progress([{"loss": 0.5}, {"loss": 0.4, "idle": None}])))) == [
        "loss"
    ]


def test_the_title_has_the_final_figures(tmp_path: Path) -> None:
    finished = drawn(run_folder(tmp_path / "fine", progress(PROGRESS), RESULT))
    assert finished.get_suptitle() == "fine · auc 0.7931 · logloss 0.4360 · nonzeros 12,345 · 4.2 s"
    failed = drawn(run_folder(tmp_path / "sad", progress(PROGRESS), {"exit": "failed", "metrics": {}}))
    assert failed.get_suptitle() == "sad · failed"
    assert drawn(run_folder(tmp_path / "on", progress(PROGRESS))).get_suptitle() == "on"


def test_a_short_run_shows_the_losses_of_its_epochs(tmp_path: Path) -> None:
    epochs = [{"time": 1000.0 + i, "event": "epoch", "epoch": i, "loss": 1 / i} for i in (1, 2, 4)]
    picture = drawn(run_folder(tmp_path / "run", [*epochs, *progress([{"loss": 0.7}])]))
    assert points(panel(picture, "loss")) == [[(1.0, 1.0), (2.0, 0.5), (4.0, 0.25)]]


@pytest.mark.parametrize(("last", "scale"), [(0.1, "linear"), (0.004, "log"), (0.0, "linear")])
def test_a_loss_that_falls_far_has_a_logarithmic_axis(tmp_path: Path, last: float, scale: str) -> None:
    evaluations = [{"time": 1003.0, "event": "evaluation", "logloss": last}]
    picture = drawn(run_folder(tmp_path / "run", [*progress([{"loss": 0.6}, {"loss": 0.5}]), *evaluations]))
    assert panel(picture, "loss").get_yscale() == scale


def test_the_objective_takes_the_place_of_the_loss(tmp_path: Path) -> None:
    picture = drawn(run_folder(tmp_path / "run", [*progress(PROGRESS), *objectives([0.7, 0.6, 0.5])]))
    assert "loss" not in titles(picture)
    assert points(panel(picture, "objective")) == [[(1.0, 0.7), (2.0, 0.6), (3.0, 0.5)]]
    assert panel(picture, "objective").get_yscale() == "linear"


def test_a_converging_objective_is_drawn_above_the_best_of_all_runs_on_a_logarithmic_axis(tmp_path: Path) -> None:
    fast = run_folder(tmp_path / "fast", objectives([0.25 + 0.5 * 0.1**i for i in range(6)]))
    slow = run_folder(tmp_path / "slow", objectives([0.25 + 0.5 * 0.5**i for i in range(6)]))
    best = 0.25 + 0.5e-5
    axes = panel(drawn(fast, slow), "objective above the best (0.250005)")
    assert axes.get_yscale() == "log"
    first, second = points(axes)
    assert first == [(1.0 + i, 0.25 + 0.5 * 0.1**i - best) for i in range(5)]  # the best itself has no place there
    assert second == [(1.0 + i, 0.25 + 0.5 * 0.5**i - best) for i in range(6)]


def test_the_share_of_active_features_has_a_panel(tmp_path: Path) -> None:
    reports = [{"time": 1001.0 + i, "event": "report", "active": 0.5**i} for i in range(3)]
    axes = panel(drawn(run_folder(tmp_path / "run", reports)), "features not filtered out")
    assert points(axes) == [[(1.0, 1.0), (2.0, 0.5), (3.0, 0.25)]]


def test_no_bound_on_the_delay_is_infinity_above_all_others(tmp_path: Path) -> None:
    axes = panel(drawn(run_folder(tmp_path / "run", progress([{"delay": 0}, {"delay": 16}, {"delay": None}]))), "delay")
    ((_, (_, highest), (_, unbounded)),) = points(axes)
    assert unbounded > highest == 16.0
    labels = dict(zip(axes.get_yticks(), [tick.get_text() for tick in axes.get_yticklabels()], strict=True))
    assert labels[unbounded] == "∞"
    assert labels[16.0] == "16"
    never = panel(drawn(run_folder(tmp_path / "never", progress([{"delay": None}] * 2))), "delay")
    assert "∞" in [tick.get_text() for tick in never.get_yticklabels()]


def test_bars_show_what_each_filter_saved(tmp_path: Path) -> None:
    axes = panel(drawn(run_folder(tmp_path / "run", [], RESULT)), "bytes saved by filters")
    assert [bar.get_width() for bar in axes.patches] == [20_000, 4_000]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["key_cache", "quantise"]
    assert written_in(axes) == ["20 kB (50%)", "4 kB (10%)"]


def test_several_runs_are_laid_over_each_other_in_colours_of_their_own(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / f"run-{i}", progress(PROGRESS), RESULT) for i in range(12)]
    for count in (3, 12):
        picture = drawn(*folders[:count])
        (legend,) = picture.legends
        shown = [text.get_text().split(" · ")[:2] for text in legend.get_texts()]
        assert shown == [[f"run-{i}", "auc 0.7931"] for i in range(count)]
        colours = [line.get_color() for line in panel(picture, "delay").get_lines()]
        assert colours == [line.get_color() for line in legend.get_lines()]
        assert len(set(map(str, colours))) == count
        sent = panel(picture, "bytes sent")
        assert sent.get_title(loc="left") == "bytes sent: workers solid, servers dashed"
        assert [line.get_linestyle() for line in sent.get_lines()] == ["-", "--"] * count
        bars = panel(picture, "bytes saved").patches
        assert len({bar.get_y() for bar in bars}) == 2 * count


def test_runs_are_named_by_their_paths_when_their_folders_have_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/run", "b/run", "_c"):
        run_folder(tmp_path / name, progress(PROGRESS))
    monkeypatch.chdir(tmp_path)
    names: list[str] = []
    monkeypatch.setattr(
        "mpips.cli.pictures.figure", lambda runs: names.extend(run.name for run in runs) or figure(runs)
    )
    typed("a/run", "b/run", "_c", "b/../a/run")  # the same folder twice is one run
    assert names == ["b/../a/run", "b/run", "_c"]


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path / name, progress(PROGRESS)) for name in ("_hidden", r"a$\frac$b$", "x" * 200)]
    for folder in folders:
        drawn(folder)
    (legend,) = drawn(*folders).legends
    hidden, dollars, long = (text.get_text() for text in legend.get_texts())
    assert hidden == "_hidden"
    assert dollars == r"a\$\frac\$b\$"
    assert long.split("\n") == ["x" * 100, "x" * 100]


def test_a_long_noisy_curve_is_drawn_as_means(tmp_path: Path) -> None:
    samples = [{"loss": 0.5 + 0.1 * (-1) ** i, "idle": 0.5} for i in range(2 * MOST_SAMPLES)]
    (training,) = points(panel(drawn(run_folder(tmp_path / "run", progress(samples))), "loss"))
    assert [seconds for seconds, _ in training] == [1.5 + 2 * i for i in range(MOST_SAMPLES)]
    assert all(math.isclose(value, 0.5) for _, value in training)


def test_a_run_under_way_is_drawn_so_far(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", progress(PROGRESS))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1004.0, "event": "progress", "lo')
    result = typed(run)
    assert result.stdout.startswith("wrote")
    assert result.stderr == f"mpips: {run}: under way, or ended by force: drawn so far, without the final figures\n"


def test_broken_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", progress(PROGRESS[:1]), RESULT)
    broken = [b"not json", b"\0\0\0", b'{"event": "progress"}', b"[1, 2]", b"\xff\xfe", b"[" * 100_000]
    whole = b'{"time": 1002.0, "event": "progress", "loss": NaN, "idle": 0.75}'  # as a diverged run logs it
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\n".join([*broken, whole]) + b"\n")
    result = typed(run)
    assert result.stderr == f"mpips: {run}/metrics.jsonl: left out 6 of 9 lines: not events of mpips\n"
    history = read(run, "run")
    assert history.training.values == [0.6]
    assert history.idle.values == [0.5, 0.75]


@pytest.mark.parametrize("content", ["", "[]", "{", '"finished"'])
def test_a_broken_result_is_said_and_the_curves_are_drawn(tmp_path: Path, content: str) -> None:
    run = run_folder(tmp_path / "run", progress(PROGRESS))
    (run / "result.json").write_text(content)
    assert f"{run}/result.json: not a result of mpips: drawn without the final figures\n" in typed(run).stderr


def test_of_several_runs_one_without_data_is_left_out(tmp_path: Path) -> None:
    full = run_folder(tmp_path / "full", progress(PROGRESS), RESULT)
    empty = run_folder(tmp_path / "empty", [], {"exit": "failed"})
    result = typed(full, empty, "--out", tmp_path)
    assert result.stderr.startswith(f"mpips: {empty}: nothing to draw")
    assert (tmp_path / "plot.png").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["nowhere"], HistoryError, "nowhere: no such run folder"),
        (["."], HistoryError, ".: no metrics.jsonl in this folder: choose the run folder that a job file's"),
        (["run/metrics.jsonl"], HistoryError, "run/metrics.jsonl: a file: choose the run folder that it is in"),
        (["odd"], HistoryError, "odd/metrics.jsonl: can't be read: Is a directory"),
        (["empty"], HistoryError, "empty: nothing to draw: no loss, delay, bytes or idle time was logged (yet)"),
        (["run", "nowhere"], HistoryError, "nowhere: no such run folder"),
        (
            ["run", "--out", "run/metrics.jsonl"],
            PictureError,
            "can't be written: File exists: choose a folder by --out",
        ),
        (["run", "--out", "run/metrics.jsonl/x"], PictureError, "can't be written: Not a directory"),
    ],
)
def test_each_mistake_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: type[Exception], message: str
) -> None:
    run_folder(tmp_path / "run", progress(PROGRESS), RESULT)
    run_folder(tmp_path / "empty", [{"time": 1001.0, "event": "note", "text": "nothing"}])
    (tmp_path / "odd" / "metrics.jsonl").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        typed(*arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("**/plot.*"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["workers", "servers"]), inner),
    max_leaves=4,
)
EVENTS = st.lists(
    st.dictionaries(st.sampled_from(["loss", "logloss", "objective", "active", "delay", "idle", "sent"]), JSON).flatmap(
        lambda fields: st.builds(
            lambda time, event: {**fields, "time": time, "event": event},
            JSON | st.floats(1000, 2000),
            st.sampled_from(["progress", "epoch", "evaluation", "report", "start"]),
        )
    ),
    max_size=8,
)
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "exit": JSON,
        "seconds": JSON,
        "metrics": JSON | st.dictionaries(st.text(max_size=3), JSON, max_size=2),
        "traffic": JSON | st.fixed_dictionaries({"filters": st.dictionaries(st.text(max_size=3), JSON, max_size=2)}),
    },
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, result=RESULTS)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_whatever_a_log_holds_there_is_a_picture_or_nothing_to_draw(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], result: dict[str, Any]
) -> None:
    run = run_folder(tmp_path_factory.mktemp("fuzz") / "run", events, result)
    history = read(run, "run")
    if not history.is_empty:
        save(figure([history]), run)
        assert (run / "plot.png").stat().st_size > 0


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    history = read(run_folder(tmp_path / "run", progress(PROGRESS), RESULT), "run")
    first, again = ([path.read_bytes() for path in save(figure([history]), tmp_path / name)] for name in ("a", "b"))
    assert first == again


def test_matplotlib_is_imported_by_this_command_only_and_mpi_and_numba_never() -> None:
    script = (
        "import sys, mpips.cli.app\n"
        "def known(): print({'mpi4py', 'numba', 'matplotlib'} & {n.split('.')[0] for n in sys.modules})\n"
        "known(); import mpips.cli.pictures; known(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["set()", "{'matplotlib'}"]


def test_the_command_line_knows_it_and_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from mpips.cli import main; main()", "plot", "nowhere"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "mpips: nowhere: no such run folder\n"


def recovery(number: int, at: float, role: str = "server", **stages: float) -> list[dict[str, Any]]:
    same = {"event": "recovery", "recovery": number, "rank": number % 5, "role": role}
    text = {"text": f"spare {5 + number} takes its place"}
    return [
        {"time": 1000.0 + at, **same, "stage": "detected"},
        *({"time": 1000.0 + at + after, **same, "stage": name, **text} for name, after in stages.items()),
    ]


class TestRecoveries:
    SPEED = progress([{"examples_per_second": 1e6}] * 3)

    def test_they_are_marked_where_a_rank_was_lost_until_nothing_is_missing(self, tmp_path: Path) -> None:
        events = [*self.SPEED, *recovery(1, 1.5, view=0.01, whole=0.75), *recovery(2, 2.5)]
        axes = panel(drawn(run_folder(tmp_path / "run", events)), "examples per second")
        lines = [line.get_xdata()[0] for line in axes.get_lines() if line.get_gid() == "recovery"]
        assert lines == [1.5, 2.5]
        (shade,) = [patch for patch in axes.patches if patch.get_gid() == "recovery"]
        assert shade.get_extents().transformed(axes.transData.inverted()).intervalx.tolist() == pytest.approx(
            [1.5, 2.25]
        )
        assert written_in(axes) == ["1", "2"]
        assert axes.get_xlim() == (0.0, 3.0)

    def test_a_strip_says_what_was_lost_and_what_took_its_place(self, tmp_path: Path) -> None:
        events = [*self.SPEED, *recovery(1, 1.5, view=0.013, acknowledged=0.04, whole=1.3)]
        events += recovery(2, 2.5, role="worker")
        strip = panel(drawn(run_folder(tmp_path / "run", events)), "recoveries")
        texts = [text.get_text() for text in strip.texts]
        assert texts == [
            *["", "after", "lost", "what was done", "view", "acknowledged", "whole"],
            *["1", "1.5 s", "server 1", "spare 6 takes its place", "13 ms", "40 ms", "1.3 s"],
            *["2", "2.5 s", "worker 2", "", "–", "–", "–"],
        ]

    def test_of_many_the_first_few_have_lines_and_the_medians_are_of_all(self, tmp_path: Path) -> None:
        many = [event for i in range(51) for event in recovery(i + 1, 1.0 + i / 100, view=0.001 * (i + 1), whole=0.5)]
        strip = panel(drawn(run_folder(tmp_path / "run", [*self.SPEED, *many])), "recoveries")
        texts = [text.get_text() for text in strip.texts]
        assert len(texts) == 7 * (1 + MOST_ROWS + 1)
        assert texts[-7:] == ["…", "", "51 in all", "median of all", "26 ms", "–", "500 ms"]

    def test_of_several_runs_each_number_has_the_colour_of_its_run(self, tmp_path: Path) -> None:
        runs = [run_folder(tmp_path / name, [*self.SPEED, *recovery(1, 1.5, view=0.01)]) for name in ("a", "b")]
        picture = drawn(*runs)
        curves = [
            line.get_color()
            for line in panel(picture, "examples per second").get_lines()
            if line.get_gid() != "recovery"
        ]
        numbers = [text for text in panel(picture, "recoveries").texts if text.get_text() == "1"]
        assert [text.get_color() for text in numbers] == curves
        assert curves[0] != curves[1]

    def test_no_two_texts_of_a_line_overlap(self, tmp_path: Path) -> None:
        events = [*self.SPEED, *recovery(1, 1.5, role="data server", view=0.123, acknowledged=0.456, whole=99.0)]
        long = "spare 123 takes its place, and three copies of its shards are made elsewhere"
        events = [event | {"text": long} if "text" in event else event for event in events]
        picture = drawn(run_folder(tmp_path / "run", events))
        boxes = [text.get_window_extent() for text in panel(picture, "recoveries").texts if text.get_text()]
        overlapping = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
        assert overlapping == []

    def test_without_any_there_is_no_strip(self, tmp_path: Path) -> None:
        assert titles(drawn(run_folder(tmp_path / "run", self.SPEED))) == ["examples per second"]


CONFUSION = [[97, 3, 0], [0, 50, 0], [1, 9, 190]]


def test_classes_that_are_taken_for_others_are_shown_with_their_counts(tmp_path: Path) -> None:
    events = [
        {"time": 1001.0 + i, "event": "evaluation", "epoch": i, "accuracy": accuracy, "confusion": CONFUSION}
        for i, accuracy in enumerate((0.9, 0.96))
    ]
    run = run_folder(tmp_path / "digits", events, {"exit": "finished", "metrics": {"accuracy": 0.96}})
    picture = drawn(run)
    wrong = next(axes for axes in picture.axes if axes.get_title("left") == "test rows taken for another class")
    assert wrong.lines[0].get_ydata() == pytest.approx([0.1, 0.04])
    confused = next(axes for axes in picture.axes if axes.get_title("left").startswith("classes"))
    assert sorted(text.get_text() for text in confused.texts) == sorted(["97", "3", "50", "1", "9", "190"])
    assert [label.get_text() for label in confused.get_yticklabels()] == ["0   3.0%", "1   0.0%", "2   5.0%"]
    titles = [axes.get_title("left") for axes in drawn(run, run).axes]
    assert not any(title.startswith("classes") for title in titles)  # of several there is no room


@pytest.mark.parametrize("odd", [[[1, 2], [3]], [[1, "2"], [3, 4]], "much", {"a": 1}, [1, 2]])
def test_what_is_no_confusion_is_left_out(tmp_path: Path, odd: Any) -> None:
    event = {"time": 1001.0, "event": "evaluation", "accuracy": 0.5, "logloss": 0.3, "confusion": odd}
    assert read(run_folder(tmp_path / "run", [event]), "run").confusion == []
