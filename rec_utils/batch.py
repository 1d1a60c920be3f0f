"""Run grids of notebooks: `python -m rec_utils.batch list | plan | run | resume | status`."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rec_utils import records, report, settings
from rec_utils.display import format_table
from rec_utils.errors import UserError, run_cli
from rec_utils.parameters import read_parameters
from rec_utils.plans import Plan, check_plan, choose_notebooks, load_plan, make_plan
from rec_utils.runs import FAILED, FINISHED, progress, stored_state
from rec_utils.scheduler import Place, here, is_running, run_batch
from rec_utils.settings import notebook_path

EPILOG = """\
examples:
  python -m rec_utils.batch list
  python -m rec_utils.batch run 00_start_here --profile smoke
  python -m rec_utils.batch run 01_kar -p BACKBONE=DIN,DCNv2 -p SEED=0..4 --workers 2 --timeout 1800
  python -m rec_utils.batch resume
  python -m rec_utils.batch run 01_kar -p SEED=0..4 --scheduler local --workers 2
  python -m rec_utils.batch run 01_kar -p SEED=0..4 --scheduler tcp://10.0.0.1:8786
  python -m rec_utils.batch run 05_corella --profile paper --gpu --scheduler slurm --workers 4 \\
      --slurm queue=gpu --slurm memory=32GB --slurm cores=8 --slurm walltime=12:00:00

values of -p NAME=VALUES
  A,B        several values make a grid with those of the other parameters
  0..4       the integers 0, 1, 2, 3, 4
  1e-3       a number, wherever the parameter is a float
  true       or false, for a bool; none where the parameter may be None
  'a, b'     one text with a comma in it (quote it once more for the shell)
  [1,5],[10] two lists

places to run: --scheduler
  (not given)      this process, --workers runs at a time
  local            dask workers on this machine: a worker that dies does not end the batch
  tcp://HOST:PORT  the workers of a dask scheduler that runs already, started on its machines by
                     dask scheduler
                     dask worker tcp://HOST:PORT --nthreads 1 [--resources GPU=1]
                   in this project's environment, at the same commit and with the data built; a scheduler
                   executes what it is sent, so let only a trusted network reach it
  slurm            --workers SLURM jobs, submitted from here by dask-jobqueue and ended with the batch
                     --slurm queue=PARTITION   --slurm account=NAME    --slurm walltime=04:00:00
                     --slurm memory=16GB       --slurm cores=8         --slurm interface=ib0
                     --slurm directive=--constraint=a100   a further line, may be repeated
                   what is not given comes from dask's configuration, ~/.config/dask/jobqueue.yaml
  --gpu            each run takes a worker that offers a GPU: --resources GPU=1, with one GPU visible to it;
                   local and slurm see to both
The run of a worker that dies is given to another one, up to three times; a run that fails is not repeated.

The same command again continues where it was: finished runs are not repeated as long as the code and the
notebook are the same. Exit status: 0 all runs finished, 1 a run failed, 2 wrong usage, 130 ctrl-C.
"""


def status_table(plan: Plan) -> str:
    """One row a run: finished, failed with cell and error, running with its cell, or waiting."""
    running, rows = is_running(plan), []
    for run in plan.runs:
        state = stored_state(plan, run)
        at = progress(plan, run) if running else None
        if at is not None:
            rows.append((run.label, "running", "", at))
        elif state is None:
            rows.append((run.label, "waiting", "", ""))
        else:
            rows.append((run.label, state.status, f"{state.seconds:.0f} s", state.problem))
    return format_table(rows, ("run", "status", "time", "detail"))


def claims_table(plan: Plan) -> str:
    """Every verdict in the records of this batch: claim, status, value with interval, null, notebook."""
    rows = []
    for run in plan.runs:
        state = stored_state(plan, run)
        if state is None or state.status != FINISHED:
            rows.append(("(no verdict)", "not run" if state is None else FAILED, "", "", run.label))
            continue
        for verdict in records.read(plan.folder / run.folder / "record.json").verdicts:
            text = verdict.text + (" (our control)" if verdict.ours else "")
            first, *more = textwrap.wrap(f"{text} [{verdict.reason}]" if verdict.reason else text, 60)
            null = f"{verdict.null:g} {verdict.unit}".strip() if verdict.value is not None else ""
            rows.append((first, report.status(verdict), report.value(verdict), null, run.label))
            rows += [(line, "", "", "", "") for line in more]
    return format_table(rows, ("claim", "status", "value [95 % interval]", "null", "notebook"))


def _list(options: argparse.Namespace) -> int:
    for name in choose_notebooks(options.notebooks, options.names):
        print(name)
        rows = [
            (f"  {p.name}", p.type, repr(p.default), p.help)
            for p in read_parameters(notebook_path(options.notebooks, name)).values()
        ]
        print(format_table(rows, ("  parameter", "type", "default", "meaning")), end="\n\n")
    return 0


def _plan(options: argparse.Namespace) -> int:
    plan = _planned(options)
    print(f"batch {plan.id}: {len(plan.runs)} runs\n{status_table(plan)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    return _go(_planned(options), options, options.fresh)


def _resume(options: argparse.Namespace) -> int:
    plan = load_plan(options.batch)
    check_plan(plan)
    return _go(plan, options, fresh=False)


def _status(options: argparse.Namespace) -> int:
    plan = load_plan(options.batch)
    print(f"batch {plan.id} in {plan.folder}\n{status_table(plan)}")
    return 0


def _planned(options: argparse.Namespace) -> Plan:
    return make_plan(options.notebooks, options.names, options.profile, options.parameters)


def _go(plan: Plan, options: argparse.Namespace, fresh: bool) -> int:
    states = run_batch(plan, place=_place(options), timeout=options.timeout, fresh=fresh)
    failed = [run for run, state in states.items() if state.status != FINISHED]
    print(status_table(plan))
    if options.report:
        print(f"\n{claims_table(plan)}")
    for run in failed:
        print(f"log and notebook of the failed run: {plan.folder / run.folder}", file=sys.stderr)
    return 1 if failed else 0


def _place(options: argparse.Namespace) -> Place:
    """Where the runs are to be executed."""
    if options.scheduler is None:
        if options.gpu:
            raise UserError("--gpu needs --scheduler; without one, runs see all GPUs of this machine")
        place = partial(here, workers=options.workers or 1)
    else:
        from rec_utils import cluster  # dask takes a second to load

        if options.scheduler == "local":
            place = partial(cluster.local, workers=options.workers or 1, gpu=options.gpu)
        elif options.scheduler == "slurm":
            how = {"options": options.slurm, "workers": options.workers or 1, "gpu": options.gpu}
            return partial(cluster.slurm, **how)
        else:
            how = {"address": options.scheduler, "workers": options.workers, "gpu": options.gpu}
            place = partial(cluster.remote, **how)
    if options.slurm:
        raise UserError("--slurm needs --scheduler slurm")
    return place


def _scheduler(text: str) -> str:
    if text in ("local", "slurm") or re.fullmatch(r"tcp://[^/\s]+:\d+", text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not local, slurm or tcp://HOST:PORT")


def _at_least(minimum: int, kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not value >= minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {minimum}")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rec_utils.batch",
        description="Run notebooks over grids of profiles and parameters.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="list | plan | run | resume | status")

    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("names", nargs="*", metavar="NOTEBOOK", help="default: all notebooks")
    which.add_argument(
        "--notebooks", type=Path, default=settings.NOTEBOOKS, metavar="DIR", help="their folder"
    )

    grid = argparse.ArgumentParser(add_help=False)
    grid.add_argument(
        "--profile", default="laptop", metavar="PROFILE[,...]", help="smoke, laptop (default), paper"
    )
    grid.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUES", help="see below"
    )

    how = argparse.ArgumentParser(add_help=False)
    how.add_argument(
        "--workers",
        type=_at_least(1, int),
        metavar="N",
        help="runs at a time (default 1; with tcp:// as many as its workers have threads)",
    )
    how.add_argument(
        "--scheduler",
        type=_scheduler,
        metavar="PLACE",
        help="local, tcp://HOST:PORT or slurm: run on dask workers, see below",
    )
    how.add_argument("--gpu", action="store_true", help="give each run a worker with a GPU")
    how.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the SLURM jobs, see below",
    )
    how.add_argument(
        "--timeout",
        type=_at_least(0, float),
        metavar="SECONDS",
        help="limit of each run, 0 for none (default: smoke 600, laptop 3600, paper none)",
    )
    how.add_argument("--report", action="store_true", help="end with a table of all claims")

    batch = argparse.ArgumentParser(add_help=False)
    batch.add_argument("batch", nargs="?", metavar="BATCH", help="id of the batch; default: the newest")

    def command(
        name: str, action: Any, text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name,
            parents=parents,
            help=text,
            description=text,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(action=action)
        return parser

    command("list", _list, "Notebooks with their parameters.", which)
    command("plan", _plan, "The runs of a grid and their states, without running them.", which, grid)
    run = command("run", _run, "Run a grid, or continue it.", which, grid, how)
    run.add_argument("--fresh", action="store_true", help="repeat finished runs as well")
    command("resume", _resume, "Continue a batch that was interrupted.", batch, how)
    command("status", _status, "The runs of a batch and their states.", batch)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parser().parse_args(arguments)
    return options.action(options)


if __name__ == "__main__":
    sys.exit(run_cli(main))
