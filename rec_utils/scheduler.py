"""Executing the runs of a batch: some at a time, each once, one batch runner at a time."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial

from rec_utils.display import Display
from rec_utils.errors import UserError
from rec_utils.plans import Plan, Run
from rec_utils.runs import FINISHED, Slot, State, execute, perform_here, share_cores, stored_state

#: Seconds that a run may take if --timeout is not given; at paper scale only the user can know.
TIMEOUTS = {"smoke": 600.0, "laptop": 3600.0, "paper": None}


#: Opens the slots on which that many runs are to be executed; closing ends what still runs on them.
Place = Callable[[int], AbstractAsyncContextManager[list[Slot]]]


@asynccontextmanager
async def here(n_runs: int, *, workers: int = 1) -> AsyncIterator[list[Slot]]:
    """Slots of this process: `workers` runs at a time, each on its share of the cores."""
    yield [partial(perform_here, cores=cores) for cores in share_cores(min(workers, n_runs))]


def run_batch(
    plan: Plan, *, place: Place = here, timeout: float | None = None, fresh: bool = False
) -> dict[Run, State]:
    """Execute the runs of `plan` that have no valid result yet; returns the state of every run.

    `place` says where; `timeout` is in seconds a run, 0 for no limit, None for the profile's. `fresh` drops
    earlier results. Raises `UserError` if the batch is running already. On ctrl-C all kernels are ended, and
    what was finished is kept.
    """
    with sole_runner(plan):
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
            if todo:
                asyncio.run(_execute_all(plan, todo, place, timeout, states))
        except ExceptionGroup as errors:  # such as a full disk: the other runs would meet it too
            raise _first(errors) from None
    return states


async def _execute_all(
    plan: Plan, todo: list[Run], place: Place, timeout: float | None, states: dict[Run, State | None]
) -> None:
    """Execute `todo`, some at a time, and enter how each ended in `states`."""
    async with place(len(todo)) as slots:
        free: asyncio.Queue[int] = asyncio.Queue()
        for number in range(len(slots)):
            free.put_nowait(number)

        async def one(run: Run) -> None:
            number = await free.get()
            limit = TIMEOUTS[run.profile] if timeout is None else timeout or None
            display.start(number, run)
            states[run] = await execute(
                plan, run, slots[number], limit, lambda event: display.cell(number, event)
            )
            display.end(run, states[run])
            free.put_nowait(number)

        with Display(len(todo), len(slots)) as display:
            clock = asyncio.create_task(display.tick())
            try:
                async with asyncio.TaskGroup() as group:
                    for run in todo:
                        group.create_task(one(run))
            finally:
                clock.cancel()


def _first(errors: ExceptionGroup) -> Exception:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


@contextmanager
def sole_runner(plan: Plan) -> Iterator[None]:
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


def is_running(plan: Plan) -> bool:
    """True while a process runs the batch."""
    with suppress(FileNotFoundError), (plan.folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
