"""The programs of a job on one rank: those of workers, and the scheduler's own."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from mpips.errors import Error
from mpips.fabric import Fabric, PeerLost
from mpips.line import Line
from mpips.messages import Failed
from mpips.plan import Plan
from mpips.scheduler.conductor import Conductor
from mpips.scheduler.desk import Desk, SentAway
from mpips.views.view import MAIN, View
from mpips.worker.worker import Leaves, Worker


class Stopped(Error):
    """The job has ended, or can't begin: this rank does nothing more for it."""


def blame(view: View, rank: int, error: BaseException) -> str:
    """Who was doing what, and where, when this error was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{view.role(rank)} {rank}: {type(error).__name__} at {last.filename}:{last.lineno}: {error}"


class Programs:
    """Runs them. Whatever goes wrong in one ends the job, and the scheduler says why.

    Parameters
    ----------
    fabric, line, plan : this rank's.
    view : tells who does what.

    Attributes
    ----------
    running : whether a program is running, which `Stopped` ends.
    """

    def __init__(self, fabric: Fabric, line: Line, view: Callable[[], View], plan: Plan) -> None:
        self.running = False
        self._fabric = fabric
        self._line = line
        self._view = view
        self._plan = plan

    def work(self, worker: Worker) -> None:
        """Run the program of the worker's group."""
        program = self._plan.program if worker.group == MAIN else self._plan.groups[worker.group].program
        with self._guarded():
            result = None
            with contextlib.suppress(Leaves):
                worker.wait_for_begin()
                result = program(worker)
            worker.settle()
            if not worker.left:
                worker.finish(result)

    def conduct(self, program: Callable[[Conductor], Any], desk: Desk, conductor: Conductor) -> Any:
        """Run the scheduler's own program once the job has begun; what it returned, or None when it did not."""
        result = None
        with self._guarded():
            self._fabric.wait(lambda: desk.replica.scheduler.began, "the start of the job", timeout=None)
            result = program(conductor)
            desk.conducted()
        return result

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        self.running = True
        try:
            yield
        except Stopped:
            pass
        except (PeerLost, SentAway):
            raise
        except Error as error:
            self._line.tell(Failed(str(error)))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            traceback.print_exc()
            self._line.tell(Failed(blame(self._view(), self._fabric.rank, error)))
        finally:
            self.running = False
