"""The commands and their options. What is heavy is imported by the command that needs it."""

from pathlib import Path
from typing import Annotated

import typer

from mpips.cli.inspect import inspect
from mpips.cli.plot import plot
from mpips.cli.predict import predict
from mpips.cli.scale import scale
from mpips.cli.trace import trace

JobFile = Annotated[Path, typer.Argument(help="The job file, such as inputs/flights-lr.toml.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a value of the job file: roles.workers=2."),
]
Ranks = Annotated[int | None, typer.Option(min=1, help="Number of ranks; by default what the roles need.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the run folder.")]
Restarts = Annotated[
    int, typer.Option(min=0, help="How often to start it again from its last checkpoint when it ends unasked.")
]
ResumeOrStart = Annotated[
    bool, typer.Option("--resume-or-start", help="Go on from the last checkpoint if there is one, else begin.")
]
Hosts = Annotated[str | None, typer.Option(help="Hosts and their slots: node1:4,node2:4. Not needed under Slurm.")]
MpirunArguments = Annotated[
    list[str] | None, typer.Argument(help="After --: more arguments of mpirun.", show_default=False)
]

app = typer.Typer(
    name="mpips",
    help="A parameter server for HPC clusters, on MPI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(no_args_is_help=True)(inspect)
app.command(no_args_is_help=True)(plot)
app.command(no_args_is_help=True)(predict)
app.command(no_args_is_help=True)(scale)
app.command(no_args_is_help=True)(trace)


@app.command(no_args_is_help=True)
def run(
    job: JobFile,
    mpirun_arguments: MpirunArguments = None,
    overrides: Overrides = None,
    ranks: Ranks = None,
    resume: Resume = False,
    hosts: Hosts = None,
    resume_or_start: ResumeOrStart = False,
    restarts: Restarts = 0,
) -> None:
    """Run a job: start its ranks by mpirun, show progress, end with a short table.

    Ctrl-C ends the job with a checkpoint; a second Ctrl-C ends it at once.
    """
    from mpips.cli.run import run_job

    code = run_job(
        job,
        overrides or [],
        ranks=ranks,
        resume=resume,
        hosts=hosts,
        extra=mpirun_arguments or [],
        resume_or_start=resume_or_start,
        restarts=restarts,
    )
    raise typer.Exit(code)


@app.command()
def doctor() -> None:
    """Say what this machine offers, and what that means for mpips."""
    from mpips.cli.doctor import examine

    raise typer.Exit(examine())
