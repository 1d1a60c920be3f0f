"""Run grids of notebooks: `python -m rec_utils.batch list | plan | run | resume | status`."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rec_utils import records, report, settings
from rec_utils.display import Display, format_table
from rec_utils.errors import UserError, run_cli
from rec_utils.parameters import read_parameters
from rec_utils.plans import Plan, Run, choose_notebooks, load_plan, make_plan, notebook_path
from rec_utils.runs import FAILED, FINISHED, State, execute, progress, stored_state

#: Seconds that a run may take if --timeout is not given; at paper scale only the user can know.
TIMEOUTS = {"smoke": 600.0, "laptop": 3600.0, "paper": None}

EPILOG = """\
examples:
  python -m rec_utils.batch list
  python -m rec_utils.batch run 00_start_here --profile smoke
  python -m rec_utils.batch run 01_kar -p BACKBONE=DIN,DCNv2 -p SEED=0..4 --workers 2 --timeout 1800
  python -m rec_utils.batch resume

values of -p NAME=VALUES
  A,B        several values make a grid with those of the other parameters
  0..4       the integers 0, 1, 2, 3, 4
  1e-3       a number, wherever the parameter is a float
  true       or false, for a bool; none where the parameter may be None
  'a, b'     one text with a comma in it (quote it once more for the shell)
  [1,5],[10] two lists

The same command again continues where it was: finished runs are not repeated as long as the code and the
notebook are the same. Exit status: 0 all runs finished, 1 a run failed, 2 wrong usage, 130 ctrl-C.
"""


def run_batch(
    plan: Plan, *, workers: int = 1, timeout: float | None = None, fresh: bool = False
) -> dict[Run, State]:
    """Execute the runs of `plan` that have no valid result yet; returns the state of every run.

    `workers` runs go at a time, each on its share of the cores; `timeout` is in seconds a run, 0 for no
    limit, None for the profile's. `fresh` drops earlier results. Raises `UserError` if the batch is
    running already. On ctrl-C all kernels are ended, and what was finished is kept.
    """
    with _sole_runner(plan):
        if fresh:
            for run in plan.runs:
                shutil.rmtree(plan.folder / run.folder, ignore_errors=True)
        states = {run: stored_state(plan, run) for run in plan.runs}
        todo = [run for run, state in states.items() if state is None or state.status != FINISHED]
        if len(todo) < len(plan.runs):
            print(
                f"{len(plan.runs) - len(todo)} of {len(plan.runs)} runs are finished already", file=sys.stderr
            )
        try:
            asyncio.run(_execute_all(plan, todo, workers, timeout, states))
        except ExceptionGroup as errors:  # such as a full disk: the other runs would meet it too
            raise _first(errors) from None
    return states


async def _execute_all(
    plan: Plan, todo: list[Run], workers: int, timeout: float | None, states: dict[Run, State | None]
) -> None:
    """Execute `todo`, some at a time, and enter how each ended in `states`."""
    slots: asyncio.Queue[int] = asyncio.Queue()
    for slot in range(min(workers, len(todo))):
        slots.put_nowait(slot)
    cores = _share_cores(slots.qsize())

    with Display(len(todo), slots.qsize()) as display:

        async def one(run: Run) -> None:
            slot = await slots.get()
            limit = TIMEOUTS[run.profile] if timeout is None else timeout or None
            display.start(slot, run)
            states[run] = await execute(
                plan, run, limit, cores[slot], lambda event: display.cell(slot, event)
            )
            display.end(run, states[run])
            slots.put_nowait(slot)

        clock = asyncio.create_task(display.tick())
        try:
            async with asyncio.TaskGroup() as group:
                for run in todo:
                    group.create_task(one(run))
        finally:
            clock.cancel()


def _share_cores(n: int) -> list[list[int]]:
    """Cores for each of `n` runs at a time: all of them (empty list) for one, else a share each."""
    if n <= 1 or not hasattr(os, "sched_getaffinity"):
        return [[]] * n
    cores = sorted(os.sched_getaffinity(0))
    return [cores[slot::n] or [cores[slot % len(cores)]] for slot in range(n)]


def _first(errors: ExceptionGroup) -> Exception:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


@contextmanager
def _sole_runner(plan: Plan) -> Iterator[None]:
    """Hold the batch's lock while it runs; left-overs of a killed batch are removed before and after."""
    plan.save()
    with (plan.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"batch {plan.id} is running already; see: python -m rec_utils.batch status"
            ) from None
        partial = plan.folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _is_running(plan: Plan) -> bool:
    with suppress(FileNotFoundError), (plan.folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def status_table(plan: Plan) -> str:
    """One row a run: finished, failed with cell and error, running with its cell, or waiting."""
    running, rows = _is_running(plan), []
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
    return _go(load_plan(options.batch), options, fresh=False)


def _status(options: argparse.Namespace) -> int:
    plan = load_plan(options.batch)
    print(f"batch {plan.id} in {plan.folder}\n{status_table(plan)}")
    return 0


def _planned(options: argparse.Namespace) -> Plan:
    return make_plan(options.notebooks, options.names, options.profile, options.parameters)


def _go(plan: Plan, options: argparse.Namespace, fresh: bool) -> int:
    states = run_batch(plan, workers=options.workers, timeout=options.timeout, fresh=fresh)
    failed = [run for run, state in states.items() if state.status != FINISHED]
    print(status_table(plan))
    if options.report:
        print(f"\n{claims_table(plan)}")
    for run in failed:
        print(f"log and notebook of the failed run: {plan.folder / run.folder}", file=sys.stderr)
    return 1 if failed else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return seconds


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
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUES", help="see above"
    )

    how = argparse.ArgumentParser(add_help=False)
    how.add_argument("--workers", type=_positive, default=1, metavar="N", help="runs at a time (default 1)")
    how.add_argument(
        "--timeout",
        type=_seconds,
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
