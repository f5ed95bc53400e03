"""A colony that is ill for a while: do checks, watchdogs, jobs and what runs them keep their word, and stay as small?

    python tests/soak/health.py [SECONDS]

Processes are killed, frozen, deafened, broken and edited at random; supervisor, keeper and companions are killed, from
a tenth to less than half of the time, so that the ones that are measured at half of it live to its end. What was done
is compared with what the processes noted themselves. SEED=N makes the same choices again, SCALE=0.1 a smaller colony.
The exit code is 0 when all held; else it is 1, what failed is said, and the directory is kept.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from chaos.storm import set_subreaper  # noqa: E402
from colony import is_alive  # noqa: E402
from soak.cast import AILMENTS, Cast, Player  # noqa: E402
from soak.judge import Cause, Ledger, Runs, judge_runs, total  # noqa: E402
from soak.measure import Size, now  # noqa: E402
from soak.stage import DISTURBED_S, PATIENCE_S, REST_S, Stage, run_and_tell  # noqa: E402

# Shares of the time: when the parts are killed, and when they are measured.
_KILLS, _MEASURED = (0.1, 0.4), (0.1, 0.5, 1.0)
_BETWEEN_KILLS, _BETWEEN_DEEDS = (2.0, 5.0), (0.15, 0.6)
# What may be more at the end than at half of the time. Memory: of a Python that has not yet seen all it ever will.
_MORE_SHARE, _MORE_KIB, _MORE_DESCRIPTORS = 0.15, 4096, 24
_DEEDS = {
    "kill": 4, "ail": 6, "pause": 1, "freeze plain": 1, "break reported": 1, "edit": 2, "edit live": 1, "ask": 1,
}  # fmt: skip
# What the history says of a restart that followed an ailment.
_REASONS = {"watched": "watchdog", "breakable": "exec", "beating": "heartbeat", "http": "http", "tcp": "tcp"}


class Soak(Stage):
    """The colony, what is done to it, and what was seen."""

    options = ("-t", "0.5", "-m", "0.2", "-M", "2", "-k", "2", "--log-budget", "1024M")
    companions = ("ncolony-check", "ncolony-jobs")

    def __init__(self, root: Path, seed: int, scale: float = 1.0, say: Callable[[str], None] = print) -> None:
        self.cast = Cast(root, scale)
        super().__init__(root, seed, Ledger(self.cast.ledger, set(self.cast.jobs)), say)
        self.players = self.cast.players
        self.sizes: dict[float, dict[str, Size]] = {}
        self.began = self.settled = self.ended = now()

    # the run

    def run(self, seconds: float) -> None:
        """Bring everybody up, be bad to them for so long, let them recover, and stop the colony."""
        set_subreaper(True)
        for player in (*self.players.values(), *self.cast.jobs.values()):
            self.write(player)
        self.launch()
        if not self.wait(self.all_up, "everybody is up", 120):
            return
        self.began = self.settled = now()
        self.disturbances.append((0.0, self.began + DISTURBED_S))
        self.say(f"{len(self.players)} processes and {len(self.cast.jobs)} jobs are up")
        self.rage(seconds)
        self.ended = now()
        self.wait(lambda: not self.ledger.waits(), "every restart that is due was done", PATIENCE_S)
        self.wait(self.all_well, "everybody is well in the end", 60)
        self.stop()

    def rage(self, seconds: float) -> None:
        """Do things, and measure."""
        next_kill = next_deed = self.began
        measures = [share for share in _MEASURED if share < 1.0]
        while (at := now()) < self.began + seconds:
            self.turn()
            share = (at - self.began) / seconds
            if measures and share >= measures[0] and self.sizes_now():
                self.sizes[measures.pop(0)] = self.sizes_now()
            # What is done late would still be going on in the end.
            if at >= next_deed and share < 1.0 - min(0.2, 20 / seconds):
                self.do_something()
                next_deed = at + self.random.uniform(*_BETWEEN_DEEDS)
            if at >= next_kill and _KILLS[0] <= share < _KILLS[1] and self.killed_at is None:
                self.kill_part()
                next_kill = at + self.random.uniform(*_BETWEEN_KILLS)
            self.pause()
        self.wait(lambda: bool(self.sizes_now()), "every part is there to be measured", 30)
        self.sizes[1.0] = self.sizes_now()
        for share in measures:
            self.fault(f"no part could be measured at {share:.0%} of the time")

    def look(self) -> None:
        """See what was noted since."""
        super().look()
        self.look_into_reasons()

    def look_into_reasons(self) -> None:
        """Who was sick must have been restarted for what was wrong with it; a little later the history has it."""
        for name, cause in self.ledger.done:
            if cause.what not in ("killed", "edited", "asked for"):
                self.later.append((now() + REST_S / 2, functools.partial(self.look_into_reason, name, cause)))
        self.ledger.done.clear()

    def look_into_reason(self, name: str, cause: Cause) -> None:
        """Why the last instance of one who was sick was stopped."""
        try:
            lines = (self.colony.state / "history" / name).read_text(encoding="utf-8").splitlines()
            reason = json.loads(lines[-1])["reason"]
        except FileNotFoundError:
            reason = "?"
        if _REASONS[self.players[name].kind] in reason:
            self.counts["reasons"] += 1
        elif not reason and (self.killed_at or any(end >= cause.when for _, end in self.disturbances)):
            # The supervisor that knew it was killed before the end of the instance.
            self.counts["reasons lost"] += 1
        else:
            self.fault(f"{name}, {cause.what}: the history says that it was stopped for {reason!r}")

    # what is there

    def all_well(self) -> bool:
        """Whether every status says that the process runs, and works as far as anybody looks."""
        for name, player in self.players.items():
            if player.kind == "crashing":
                continue
            status = self.colony.status(name) or {}
            fine = status.get("state") == "RUNNING" and is_alive(status.get("pid") or 0)
            if not fine or (player.config.get("check") and status.get("healthy") is not True):
                return False
        return True

    # what is done

    def do_something(self) -> None:
        """One deed to one process that is at rest."""
        deed = self.random.choices(list(_DEEDS), list(_DEEDS.values()))[0]
        players = list(self.players.values())
        chosen: dict[str, Callable[[Player], bool]] = {
            "kill": lambda player: player.kind != "crashing",
            "ail": lambda player: player.kind in AILMENTS,
            "pause": lambda player: player.kind in ("http", "beating"),
            "freeze plain": lambda player: player.kind in ("plain", "following", "talking", "tcp"),
            "break reported": lambda player: player.kind == "reported",
        }
        fitting = [player for player in players if chosen.get(deed, lambda one: one.kind != "crashing")(player)]
        player = self.random.choice(fitting)
        pid = self.pid_of(player.name)
        if pid is None:
            return
        self.note(f"{deed} {player.name}, pid {pid}")
        try:
            getattr(self, f"_{deed.replace(' ', '_')}")(player, pid)
        except ProcessLookupError:
            self.fault(f"{player.name}: pid {pid} was gone in the moment of a deed")

    def _kill(self, player: Player, pid: int) -> None:
        self.ledger.expect(player.name, "killed", now())
        os.kill(pid, signal.SIGKILL)

    def _ail(self, player: Player, pid: int) -> None:
        ailment = AILMENTS[player.kind]
        what = "silent to its watchdog" if player.kind == "watched" else f"sick, {player.kind} check"
        self.ledger.expect(player.name, what, now())
        if ailment == "break":
            assert player.broken
            player.broken.touch()
        else:
            os.kill(pid, signal.SIGSTOP if ailment == "freeze" else signal.SIGUSR1)

    def _pause(self, player: Player, pid: int) -> None:
        """Frozen for less than a check minds."""
        self._freeze_for(player, pid, 1.0)

    def _freeze_plain(self, player: Player, pid: int) -> None:
        """Nobody looks at it, or only whether its port is open."""
        self._freeze_for(player, pid, 8.0)

    def _freeze_for(self, player: Player, pid: int, seconds: float) -> None:
        self.counts["harmless deeds"] += 1
        os.kill(pid, signal.SIGSTOP)
        # It is not to be chosen for another deed meanwhile.
        self.ledger.life(player.name).calm_since = now() + seconds

        def go_on() -> None:
            if (self.colony.status(player.name) or {}).get("pid") == pid:
                os.kill(pid, signal.SIGCONT)

        self.later.append((now() + seconds, go_on))

    def _break_reported(self, player: Player, _pid: int) -> None:
        """Its check only reports."""
        assert player.broken
        self.counts["harmless deeds"] += 1
        broken = player.broken
        broken.touch()
        self.ledger.life(player.name).calm_since = now() + 12
        self.later.append((now() + 12, lambda: broken.unlink(missing_ok=True)))

    def _edit(self, player: Player, _pid: int) -> None:
        player.edits += 1
        player.config["soak.edit"] = player.edits
        self.ledger.expect(player.name, "edited", now())
        self.write(player)

    def _edit_live(self, player: Player, _pid: int) -> None:
        self.counts["harmless deeds"] += 1
        player.config["kill_time"] = 3 - player.config["kill_time"]
        self.write(player)

    def _ask(self, player: Player, _pid: int) -> None:
        self.ledger.expect(player.name, "asked for", now())
        self.colony.post({"type": "RESTART", "name": player.name})

    # the verdict

    def runs(self) -> Runs:
        """How the jobs fared."""
        offset = time.time() - now()
        between = (self.settled, self.ended - 2.0)
        return total(
            {
                name: judge_runs(job, [at for at, _ in self.ledger.life(name).ups], between, self.disturbances, offset)
                for name, job in self.cast.jobs.items()
            }
        )

    def unflat(self) -> list[str]:
        """The parts that have grown since half of the time."""
        wrong = []
        for part, later in self.sizes.get(1.0, {}).items():
            early = self.sizes.get(0.5, {}).get(part)
            if early is None:
                continue
            if early.pid != later.pid:
                wrong.append(f"{part} was replaced after half of the time: pid {early.pid}, then {later.pid}")
            if later.pss_kib > early.pss_kib * (1 + _MORE_SHARE) + _MORE_KIB:
                wrong.append(f"{part} grew from {early.pss_kib} to {later.pss_kib} KiB")
            # A supervisor and a keeper that took over have two for each process, which come within a moment.
            adopting = 2 * len(self.players) if part not in self.companions else 0
            if later.descriptors > max(early.descriptors, adopting) + _MORE_DESCRIPTORS:
                wrong.append(f"{part} grew from {early.descriptors} to {later.descriptors} descriptors")
        return wrong

    def verdict(self) -> tuple[str, list[str]]:
        """A table, and what must not be."""
        runs = self.runs()
        faults = [*self.faults, *self.ledger.faults, *runs.faults, *self.unflat()]
        counts = self.ledger.counts
        rows: list[tuple[object, ...]] = [
            ("processes, jobs", len(self.players), len(self.cast.jobs)),
            ("kills of parts", sum(self.counts[part] for part in self.parts),
             ", ".join(f"{part} {self.counts[part]}" for part in self.parts)),
            ("starts noted", counts["starts"], f"duplicates {counts['duplicates']}"),
        ]  # fmt: skip
        for what, delays in sorted(self.ledger.delays.items()):
            delays.sort()
            middle, longest = delays[len(delays) // 2], delays[-1]
            done = f"restarts {counts[f'{what}, done']}, after {middle:.1f} s (median), {longest:.1f} s (longest)"
            rows.append((what, counts[what], done))
        rows += [
            ("harmless deeds", self.counts["harmless deeds"], "restarts 0"),
            ("reasons in the history", self.counts["reasons"], f"lost with a supervisor {self.counts['reasons lost']}"),
            ("restarts without a cause", counts["spurious"], f"causes without a restart {counts['missing']}"),
            ("runs of jobs due", runs.due, f"missed {runs.missed}, doubled {runs.doubled}, latest {runs.latest:.1f} s"),
            ("runs left out when parts were killed", runs.left_out, ""),
            ("left behind", self.counts["left behind"], ""),
        ]  # fmt: skip
        for part in self.parts:
            sizes = [self.sizes.get(share, {}).get(part) for share in _MEASURED]
            kib = " / ".join(f"{size.pss_kib / 1024:.1f}" if size else "?" for size in sizes)
            opened = " / ".join(str(size.descriptors) if size else "?" for size in sizes)
            early, later = sizes[1], sizes[2]
            busy = (later.cpu_s - early.cpu_s) / (later.at - early.at) if early and later else 0.0
            rows.append((f"{part}: MiB (PSS)", kib, f"descriptors {opened}, {busy:.1%} of a core"))
        lines = ["| what | how many | |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
        return "\n".join(lines), faults


def main() -> int:
    """Run one soak and print what came of it; the exit code."""
    scale = float(os.environ.get("SCALE") or 1.0)
    return run_and_tell(lambda root, seed, say: Soak(root, seed, scale, say))


if __name__ == "__main__":
    sys.exit(main())
