"""The launchers' harmless messages are taken out, and nothing else."""

from mpips.cli.noise import BannerFilter, NoiseFilter

RULE = "-" * 74
UNTESTED = [
    RULE,
    "WARNING: The selected 'osc' module 'sm' is not tested for post-failure",
    "operation, yet you have requested support for fault tolerance.",
    "failure scenarios: {}",
    RULE,
]


def through(*lines: str) -> list[str]:
    noise = NoiseFilter()
    return [shown for line in lines for shown in noise.pass_on(line)] + noise.rest()


def test_block_about_untested_windows_is_dropped() -> None:
    assert through("before", *UNTESTED, "after") == ["before", "after"]


def test_other_blocks_between_rules_are_kept() -> None:
    block = [RULE, "There are not enough slots available in the system", RULE, "after"]
    assert through(*block) == block


def test_block_after_a_dropped_one_is_kept() -> None:
    block = [RULE, "mpirun noticed that process rank 1 exited on signal 9", RULE]
    assert through(*UNTESTED, *block) == block


def test_rule_at_the_end_is_kept() -> None:
    assert through("text", RULE) == ["text", RULE]


def test_single_harmless_lines_are_dropped() -> None:
    assert through(
        "[vm:1] NBC_Progress: an error 75 was found during schedule 0x1 at round-level 0",
        "[vm:1] 3 more processes have sent help message help-mpi-ft.txt / module:untested:failundef",
        "[vm:1] 1 more process has sent help message help-mpi-ft.txt / module:untested:failundef",
        '[vm:1] Set MCA parameter "orte_base_help_aggregate" to 0 to see all help / error messages',
        "[vm:28445] pmix_ptl_base: send_msg: write failed: Bad file descriptor (9) [sd = -1]",
        "a line of a rank",
    ) == ["a line of a rank"]


def test_empty_lines_are_dropped_after_noise_alone() -> None:
    noise = ["NBC_Progress: an error 75 was found during schedule 0x1 at row-offset 0 - aborting the schedule", ""]
    assert through("a", "", *noise, *noise, "b", "", "c") == ["a", "", "b", "", "c"]


BANNER = [
    "",
    "=" * 83,
    "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES",
    "=   PID 6531 RUNNING AT vm",
    "=   EXIT CODE: 9",
    "=   CLEANING UP REMAINING PROCESSES",
    "=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES",
    "=" * 83,
    "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)",
    "This typically refers to a problem with your application.",
    "Please see the FAQ page for debugging suggestions",
]


def through_banner_filter(*lines: str) -> tuple[list[str], bool]:
    banner = BannerFilter()
    return [shown for line in lines for shown in banner.pass_on(line)] + banner.rest(), banner.died


def test_banner_about_a_dead_rank_is_dropped_and_remembered() -> None:
    assert through_banner_filter("before", *BANNER, "after") == (["before", "after"], True)


def test_frames_and_empty_lines_of_a_program_are_kept() -> None:
    lines = ["a", "", "=" * 83, "= a title", "=" * 83, "", "", "=" * 70, "=" * 70, "b", BANNER[-1], ""]
    assert through_banner_filter(*lines) == (lines, False)
