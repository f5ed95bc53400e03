"""Who may start, and who may stop: what the `after` keys say, against how the others stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..decide import lifecycle
from ..decide.lifecycle import Event, State, Wanted
from ..decide.order import LIVE, Standing, circles, look
from ..model.conditions import After, as_after
from .known import Known

if TYPE_CHECKING:
    from .loop import Supervisor

# So many are restarted at a time where a thousand are to be: each is down for as long as its own restart takes, and not
# until the keeper gets round to it. Whoever is slow to stop keeps nobody waiting. And what the keeper says when it has
# done that; no message has such a name.
_AT_ONCE, PORTION = 32, ".portion"


class Ordering:
    """The `after` of each process, and whom it concerns when one of them changes. A change costs nothing to others."""

    def __init__(self, colony: Supervisor) -> None:
        self._colony = colony
        self._after: dict[str, dict[str, After]] = {}  # process -> whom it waits for, as written in its file
        self._dependents: dict[str, set[str]] = {}  # a name as written there -> the processes that wait for it
        # What processes are told once nobody needs them any more, and how they were when that was asked for.
        self._held: dict[str, tuple[Event, int, Wanted]] = {}
        self._needed_by: dict[str, str] = {}  # one that is held back -> one that needs it
        self._going: set[str] = set()  # that have just been told so
        self._looks: dict[str, float] = {}  # processes to look at again when it is so late
        self._begun = False  # whether it is known what runs
        self._queue: deque[str] = deque()  # of those that are held, the ones that nobody needs: their turn is to come
        self._awaited = False  # the keeper has still to do what those were told that had theirs

    # starting

    def define(self, name: str, known: Known) -> None:
        """The definition of a process has changed, or is gone."""
        definition = known.definition
        after = {} if definition is None else {one: as_after(how) for one, how in definition.config.after.items()}
        before = self._after.pop(name, {})
        if after:
            self._after[name] = after
        for one in before.keys() - after.keys():
            self._dependents[one].discard(name)
            if not self._dependents[one]:
                del self._dependents[one]
        for one in after.keys() - before.keys():
            self._dependents.setdefault(one, set()).add(name)
        if after or before:
            self._reconsider(name)
        self._needed_by.clear()
        if self._held:
            # Nobody else would notice that they are needed no more.
            self._release(process for one in before for process in self._colony.definitions.processes(one))

    def changed(self, name: str, known: Known) -> None:
        """A process is not what it was: those that wait for it may go on, and those bound to it may not."""
        self._going.discard(name)
        if self._dependents:
            for dependent in sorted(self._dependents_of(name, known)):
                self._reconsider(dependent)
        if self._held:
            self._release(self._needs(name))

    def begin(self) -> None:
        """It is known how everybody is: from now on nobody goes on who is bound to what is not there."""
        self._begun = True
        for name in self._after:
            known = self._colony.known.get(name)
            if known is None or known.process is None:
                continue
            if younger := self._younger(name, known):  # while nobody looked
                self._colony.events.append((name, lifecycle.Conditions(known.process.waiting_for, younger)))
            self._reconsider(name)

    def waiting_for(self, name: str) -> tuple[str, ...]:
        """What has to be before the process may start, in words."""
        return tuple(why for why, _ in self._unmet(name))

    def _unmet(self, name: str) -> list[tuple[str, After]]:
        colony, found = self._colony, []
        now = colony.reactor.seconds()
        for other, after in self._after.get(name, {}).items():
            seen = look(after.when, other, self._standings(other), now)
            if seen.why:
                found.append((seen.why, after))
            if seen.again is not None:
                self._look_again(name, seen.again)
        return found

    def _standings(self, name: str) -> list[Standing]:
        known = self._colony.known
        moving = self._held.keys() | self._going
        return [
            Standing(one, known[one].process, known[one].healthy, one in moving)
            for one in self._colony.definitions.processes(name)
            if one in known
        ]

    def _look_again(self, name: str, at: float) -> None:
        if self._looks.get(name, at + 1.0) > at:
            self._looks[name] = at
            wait = max(0.0, at - self._colony.reactor.seconds())
            self._colony.reactor.callLater(wait, self._colony.guarded, self._look, name)

    def _look(self, name: str) -> None:
        self._looks.pop(name, None)
        self._reconsider(name)

    def _reconsider(self, name: str) -> None:
        known = self._colony.known.get(name)
        if known is None or known.process is None:
            return
        process, unmet = known.process, self._unmet(name)
        waiting_for = tuple(why for why, _ in unmet)
        # Who is to be told to go anyway goes in his turn.
        may_break = self._begun and name not in self._held and process.state in (State.STARTING, State.RUNNING)
        broken = tuple(why for why, after in unmet if after.bind) if may_break else ()
        if waiting_for != process.waiting_for or broken:
            self._colony.events.append((name, lifecycle.Conditions(waiting_for, broken)))

    def _younger(self, name: str, known: Known) -> tuple[str, ...]:
        """Those to which a process is bound that were started after it."""
        started = known.started
        return tuple(
            f"{one}, which has been restarted"
            for other, after in self._after[name].items()
            for one in self._colony.definitions.processes(other)
            if after.bind and after.when != "completed" and started is not None
            if (its := self._colony.known.get(one)) is not None and its.pid is not None
            if its.started is not None and its.started > started
        )

    # stopping

    def tell(self, names: Iterable[str], event: Event) -> None:
        """Tell processes to stop or to restart: each as soon as none of those that need it lives any more."""
        told = []
        for name in names:
            if (known := self._colony.known.get(name)) is not None and known.process is not None:
                told.append(name)
                self._held[name] = event, known.process.number, known.process.wanted
        for name in told:
            # What waits for it is not to start again before that.
            for dependent in sorted(self._dependents_of(name, self._colony.known[name])):
                self._reconsider(dependent)
        needs = {name: self._needs(name) for name in self._after}
        at_once = circles(needs) if needs else {}
        going = [name for name in told if name in at_once or not self._is_needed(name)]
        if isinstance(event, lifecycle.Restart):
            self._queue.extend(going)
            self.go_on()
        else:
            for name in going:
                self._let_go(name)

    def go_on(self) -> None:
        """Have some more restarted, if now is the time: whose turn comes later runs until then.

        It is when the keeper has done what it was told, and does not have much to start.
        """
        hands = self._colony.hands
        if not self._queue or self._awaited or not hands.agreed or len(hands.starting) >= _AT_ONCE:
            return
        for name in [self._queue.popleft() for _ in range(min(len(self._queue), _AT_ONCE))]:
            if name in self._held:
                self._let_go(name)
        self._colony.drain_events()
        if self._queue:
            self._awaited = True
            hands.call_back(PORTION)

    def portion_done(self) -> None:
        """The keeper has come so far, or is gone."""
        self._awaited = False

    def drop(self) -> None:
        """Nobody is spared any more: what is to come now comes to all at once."""
        self._held.clear()

    def _needs(self, name: str) -> set[str]:
        return {one for other in self._after.get(name, ()) for one in self._colony.definitions.processes(other)}

    def _dependents_of(self, name: str, known: Known) -> set[str]:
        found = self._dependents.get(name, set())
        return found | self._dependents.get(known.file, set()) if known.file != name else found

    def _is_needed(self, name: str) -> bool:
        """Whether one of those that wait for it lives, and is to be told as well.

        One that has ended stands between the two that wait for each other through it.
        """
        known, seen, todo = self._colony.known, {name}, [name]
        if (last := self._needed_by.get(name)) is not None and self._is_to_go(last):
            return True  # as seen the last time: not every one of thousands is looked at for each that goes
        while todo:
            one = todo.pop()
            for dependent in self._dependents_of(one, known[one]) - seen:
                seen.add(dependent)
                if self._is_to_go(dependent):
                    self._needed_by[name] = dependent
                    return True
                process = known[dependent].process if dependent in known else None
                if process is not None and process.state not in LIVE:
                    todo.append(dependent)
        self._needed_by.pop(name, None)
        return False

    def _is_to_go(self, name: str) -> bool:
        """Whether it lives, and is to stop or to restart."""
        process = known.process if (known := self._colony.known.get(name)) is not None else None
        if process is None or process.state not in LIVE:
            return False
        return name in self._held or name in self._going or process.state is lifecycle.State.STOPPING

    def _release(self, needed: Iterable[str]) -> None:
        """The last that needed these may be gone, or those that they need in turn where they have ended."""
        known, seen, todo = self._colony.known, set[str](), [*needed]
        while todo:
            if (one := todo.pop()) in seen:
                continue
            seen.add(one)
            if one not in self._held:
                todo += self._needs(one)
            elif one not in known or not self._is_needed(one):
                self._let_go(one)

    def _let_go(self, name: str) -> None:
        event, number, wanted = self._held.pop(name)
        known = self._colony.known.get(name)
        if known is None or known.process is None:
            return
        if isinstance(event, lifecycle.Stop) or (known.process.number, known.process.wanted) == (number, wanted):
            self._going.add(name)
            self._colony.events.append((name, event))
        else:
            self.changed(name, known)
            self._reconsider(name)
