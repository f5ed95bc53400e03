"""Ending the colony when there is no supervisor: after a time without one, or asked for by hand."""

from __future__ import annotations

import signal

from adopt import is_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from __main__ import Keeper
    from instance import Instance

# After the last step of a stop sequence KILL is repeated this often, as a supervisor would.
_KILL_AGAIN_S = 1.0


class Ending:
    """Gives every instance the stop sequence it was started with, and ends the keeper after the last one."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.patience: float | None = None  # seconds without a supervisor; None: for ever
        self.under_way = False
        self.left: set[Instance] = set()  # what is still to end
        self.turn = 0  # what was planned in an earlier turn is not done

    def linger(self) -> None:
        """The supervisor is gone: give another one its time."""
        if self.patience is not None and is_time(self.patience) and not self.keeper.leaving:
            self._later(self.patience, self.begin)

    def cancel(self) -> None:
        """There is a supervisor: everything is its affair."""
        self.turn += 1
        self.under_way = False
        for instance in self.keeper.by_id.values():
            instance.ordered = instance.ordered and not instance.alive

    def begin(self) -> None:
        """Stop everything."""
        if self.under_way:
            return
        self.turn += 1
        self.under_way = True
        self.left = {instance for instance in self.keeper.by_id.values() if not instance.empty}
        for instance in list(self.left):
            instance.ordered = instance.alive
            self._step(instance, 0)
        self._look()

    def gone(self, instance: Instance) -> None:
        """Nothing is left of an instance."""
        self.left.discard(instance)
        self._look()

    def _look(self) -> None:
        """End when nothing is left. What ended stays on disk: the next supervisor records it."""
        if self.under_way and not self.left:
            self.keeper.leave()

    def _step(self, instance: Instance, rung: int) -> None:
        """Send the next signal; what is still there after its time gets the one after it."""
        if instance.empty:
            return
        number, seconds, scope = int(signal.SIGKILL), _KILL_AGAIN_S, "tree"
        if rung < len(instance.stop):
            number, seconds = int(instance.stop[rung][0]), instance.stop[rung][1]
            scope = instance.scope if instance.alive else "tree"
        order = {"id": instance.identity, "signal": number, "scope": scope, "wake": True}
        self.keeper.attempt(lambda: self.keeper.do_signal(order))
        self._later(seconds, lambda: self._step(instance, rung + 1))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        turn = self.turn
        self.keeper.after(seconds, lambda: call() if turn == self.turn else None)
