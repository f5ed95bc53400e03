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
import platform
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    sys.path.insert(0, str(HERE.parent))

from chaos.storm import reap_all_but, set_subreaper  # noqa: E402
from colony import MARK, Colony, descriptors, is_alive  # noqa: E402
from soak.cast import AILMENTS, Cast, Player  # noqa: E402
from soak.judge import Cause, Ledger, Runs, judge_runs, total  # noqa: E402

OPTIONS = ("-t", "0.5", "-m", "0.2", "-M", "2", "-k", "2", "--log-budget", "1024M")
COMPANIONS = ("ncolony-check", "ncolony-jobs")
PARTS = ("supervisor", "keeper", *COMPANIONS)
# Shares of the time: when the parts are killed, and when they are measured.
_KILLS, _MEASURED = (0.1, 0.4), (0.1, 0.5, 1.0)
_BETWEEN_KILLS, _PAUSE, _BETWEEN_DEEDS = (2.0, 5.0), (0.0, 0.3), (0.15, 0.6)
_TURN_S = 0.02
# A process is left alone for so long after each start: a second deed at once would tell nothing.
_REST_S = 4.0
# Grace, failures up to the threshold, time-outs, the stop, and a machine that has no time.
_PATIENCE_S = 90.0
# While there is no supervisor, and until it or a new keeper has found out what runs and has ended, a run may be left
# out: nobody is there to start it, or the last one seems to go on.
_DISTURBED_S = 10.0
# What may be more at the end than at half of the time. Memory: of a Python that has not yet seen all it ever will.
_MORE_SHARE, _MORE_KIB, _MORE_DESCRIPTORS = 0.15, 4096, 24
_DEEDS = {
    "kill": 4, "ail": 6, "pause": 1, "freeze plain": 1, "break reported": 1, "edit": 2, "edit live": 1, "ask": 1,
}  # fmt: skip
# What the history says of a restart that followed an ailment.
_REASONS = {"watched": "watchdog", "breakable": "exec", "beating": "heartbeat", "http": "http", "tcp": "tcp"}
# A supervisor that ends by itself so often does not come up any more.
_MOST_ENDS = 2
_SHOWN_FAULTS = 30


def now() -> float:
    """Seconds since boot, as the players note them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Size:
    """What a part takes."""

    pid: int
    pss_kib: int
    descriptors: int
    cpu_s: float
    at: float


def size_of(pid: int) -> Size | None:
    """What a process takes now; None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    [pss] = [int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")]
    cpu_s = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return Size(pid, pss, len(descriptors(pid)), cpu_s, now())


class Soak:
    """The colony, what is done to it, and what was seen."""

    def __init__(self, root: Path, seed: int, scale: float = 1.0, say: Callable[[str], None] = print) -> None:
        self.colony, self.seed, self.random, self.say = Colony(root), seed, random.Random(seed), say
        self.cast = Cast(root, scale)
        self.ledger = Ledger(self.cast.ledger, set(self.cast.jobs))
        self.diary = (root / "diary").open("w", encoding="utf-8", buffering=1)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.sizes: dict[float, dict[str, Size]] = {}
        self.disturbances: list[tuple[float, float]] = []
        self.killed_at: float | None = None  # the supervisor, and no other is up yet
        self.next_parts: list[str] = []
        self.launch_at = 0.0
        self.launched = False  # and not killed since
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.began = self.settled = self.ended = now()

    # the run

    def run(self, seconds: float) -> None:
        """Bring everybody up, be bad to them for so long, let them recover, and stop the colony."""
        set_subreaper(True)
        for player in (*self.cast.players.values(), *self.cast.jobs.values()):
            self.write(player)
        self.launch()
        if not self.wait(self.all_up, "everybody is up", 120):
            return
        self.began = self.settled = now()
        self.disturbances.append((0.0, self.began + _DISTURBED_S))
        self.say(f"{len(self.cast.players)} processes and {len(self.cast.jobs)} jobs are up")
        self.rage(seconds)
        self.ended = now()
        self.wait(lambda: not self.ledger.waits(), "every restart that is due was done", _PATIENCE_S)
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
            time.sleep(_TURN_S)
        self.wait(lambda: bool(self.sizes_now()), "every part is there to be measured", 30)
        self.sizes[1.0] = self.sizes_now()
        for share in measures:
            self.fault(f"no part could be measured at {share:.0%} of the time")

    def turn(self) -> None:
        """What has to be done again and again."""
        at = now()
        self.reap()
        self.ledger.read()
        self.ledger.overdue(at, _PATIENCE_S)
        self.look_into_reasons()
        due = [deed for when, deed in self.later if when <= at]
        self.later = [(when, deed) for when, deed in self.later if when > at]
        for deed in due:
            deed()
        self.look_after_supervisor(at)

    def look_after_supervisor(self, at: float) -> None:
        """Start another one when it is due; note how long there was none."""
        process = self.colony.process
        assert process
        if self.launched and process.poll() is not None:
            self.counts["ends"] += 1
            self.fault(f"the supervisor ended by itself with {process.returncode}")
            self.launched, self.launch_at, self.killed_at = False, at + 1, self.killed_at or at
        if not self.launched and at >= self.launch_at:
            self.launch()
        elif self.launched and self.killed_at and (self.colony.supervisor() or {}).get("pid") == process.pid:
            self.disturbances.append((self.killed_at - 1, at + _DISTURBED_S))
            self.killed_at = None

    def look_into_reasons(self) -> None:
        """Who was sick must have been restarted for what was wrong with it; a little later the history has it."""
        for name, cause in self.ledger.done:
            if cause.what not in ("killed", "edited", "asked for"):
                self.later.append((now() + _REST_S / 2, functools.partial(self.look_into_reason, name, cause)))
        self.ledger.done.clear()

    def look_into_reason(self, name: str, cause: Cause) -> None:
        """Why the last instance of one who was sick was stopped."""
        try:
            lines = (self.colony.state / "history" / name).read_text(encoding="utf-8").splitlines()
            reason = json.loads(lines[-1])["reason"]
        except FileNotFoundError:
            reason = "?"
        if _REASONS[self.cast.players[name].kind] in reason:
            self.counts["reasons"] += 1
        elif not reason and (self.killed_at or any(end >= cause.when for _, end in self.disturbances)):
            # The supervisor that knew it was killed before the end of the instance.
            self.counts["reasons lost"] += 1
        else:
            self.fault(f"{name}, {cause.what}: the history says that it was stopped for {reason!r}")

    def wait(self, predicate: Callable[[], bool], what: str, timeout: float) -> bool:
        """Go on until it holds; a fault when it does not in time."""
        end = now() + timeout
        while not predicate():
            if now() > end or self.counts["ends"] > _MOST_ENDS:
                self.fault(f"not within {timeout:g} s: {what}: {self.missing()}")
                return False
            self.turn()
            time.sleep(_TURN_S)
        return True

    def launch(self) -> None:
        """Start a supervisor and do not wait for it."""
        colony = self.colony
        with (colony.root / "output").open("ab") as output:
            colony.process = subprocess.Popen(
                colony.command(*OPTIONS),
                cwd=colony.root,
                env={**os.environ, MARK: colony.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.launched = True

    def reap(self) -> None:
        """What the kernel gives to us, as to a process 1, is reaped soon."""
        reap_all_but(self.colony.process.pid if self.colony.process else 0)

    def stop(self) -> None:
        """End the colony; nothing may be left."""
        process = self.colony.process
        assert process
        process.send_signal(signal.SIGTERM)
        if not self.wait_for_end(process, 60):
            self.fault("SIGTERM did not end the supervisor within 60 s")
        elif process.returncode:
            self.fault(f"the supervisor ended with {process.returncode}")
        for pid, command in self.colony.processes().items():
            self.counts["left behind"] += 1
            self.fault(f"left behind: {pid} {command}")

    def wait_for_end(self, process: subprocess.Popen[bytes], timeout: float) -> bool:
        """Whether it ends in time; meanwhile orphans are reaped."""
        end = now() + timeout
        while process.poll() is None and now() < end:
            self.reap()
            time.sleep(_TURN_S)
        return process.poll() is not None

    def end_all(self) -> None:
        """Leave no process, however it went."""
        for _ in range(100):
            left = self.colony.processes()
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.reap()
            if not left:
                break
            time.sleep(0.05)
        if self.colony.process:
            self.colony.process.wait()
        self.reap()
        set_subreaper(False)
        self.ledger.close()
        self.diary.close()

    # what is there

    def all_up(self) -> bool:
        """Whether everybody has noted a start, and every part is there."""
        return not self.missing()

    def missing(self) -> list[str]:
        """Who has not noted a start, or waits for one; and the parts that are not there."""
        names = [name for name in self.cast.players if not self.ledger.life(name).ups]
        there = self.pids()
        return [*(part for part in PARTS if part not in there), *names, *self.ledger.waits()][:8]

    def all_well(self) -> bool:
        """Whether every status says that the process runs, and works as far as anybody looks."""
        for name, player in self.cast.players.items():
            if player.kind == "crashing":
                continue
            status = self.colony.status(name) or {}
            fine = status.get("state") == "RUNNING" and is_alive(status.get("pid") or 0)
            if not fine or (player.config.get("check") and status.get("healthy") is not True):
                return False
        return True

    def pid_of(self, name: str) -> int | None:
        """The pid of a process that is at work and at rest: nothing is expected of it."""
        life = self.ledger.life(name)
        if life.pending is not None or now() - life.calm_since < _REST_S:
            return None
        status = self.colony.status(name) or {}
        pid = status.get("pid")
        return pid if status.get("state") == "RUNNING" and isinstance(pid, int) and is_alive(pid) else None

    def pids(self) -> dict[str, int]:
        """The parts that are there."""
        assert self.colony.process
        supervisor = self.colony.supervisor() or {}
        found = {"supervisor": supervisor.get("pid"), "keeper": supervisor.get("keeper")}
        found |= {name: (self.colony.status(name) or {}).get("pid") for name in COMPANIONS}
        own = found["supervisor"] == self.colony.process.pid
        return {name: pid for name, pid in found.items() if own and isinstance(pid, int) and is_alive(pid)}

    def sizes_now(self) -> dict[str, Size]:
        """What each part takes, nothing when one is missing."""
        sizes = {name: size_of(pid) for name, pid in self.pids().items()}
        whole = {name: size for name, size in sizes.items() if size is not None}
        return whole if len(whole) == len(PARTS) else {}

    # what is done

    def note(self, text: str) -> None:
        """Write into the diary."""
        self.diary.write(f"{now():.2f} {text}\n")

    def fault(self, text: str) -> None:
        """Note what must not be."""
        self.note(text)
        self.faults.append(text)
        self.say(text)

    def write(self, player: Player) -> None:
        """Write a config file."""
        self.colony.put(player.name, player.config)

    def do_something(self) -> None:
        """One deed to one process that is at rest."""
        deed = self.random.choices(list(_DEEDS), list(_DEEDS.values()))[0]
        players = list(self.cast.players.values())
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

    def kill_part(self) -> None:
        """SIGKILL supervisor, keeper or a companion."""
        # Each in turn, in an order of chance: in a short time too.
        self.next_parts = self.next_parts or self.random.sample(PARTS, len(PARTS))
        pid = self.pids().get(self.next_parts[-1])
        if pid is None:
            return
        part = self.next_parts.pop()
        self.note(f"kill the {part}, pid {pid}")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.counts[part] += 1
        if part == "keeper":
            self.disturbances.append((now() - 1, now() + _DISTURBED_S))
        if part == "supervisor":
            assert self.colony.process
            self.colony.process.wait()
            self.launched, self.killed_at = False, now()
            self.launch_at = now() + self.random.uniform(*_PAUSE)

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
            adopting = 2 * len(self.cast.players) if part not in COMPANIONS else 0
            if later.descriptors > max(early.descriptors, adopting) + _MORE_DESCRIPTORS:
                wrong.append(f"{part} grew from {early.descriptors} to {later.descriptors} descriptors")
        return wrong

    def verdict(self) -> tuple[str, list[str]]:
        """A table, and what must not be."""
        runs = self.runs()
        faults = [*self.faults, *self.ledger.faults, *runs.faults, *self.unflat()]
        counts = self.ledger.counts
        rows: list[tuple[object, ...]] = [
            ("processes, jobs", len(self.cast.players), len(self.cast.jobs)),
            ("kills of parts", sum(self.counts[part] for part in PARTS),
             ", ".join(f"{part} {self.counts[part]}" for part in PARTS)),
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
        for part in PARTS:
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
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    scale = float(os.environ.get("SCALE") or 1.0)
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"soak of {seconds:g} s, SEED={seed}, Linux {platform.release()}, {os.cpu_count()} cores, {root}", flush=True)
    soak = Soak(root, seed, scale, lambda text: print(text, flush=True))
    try:
        soak.run(seconds)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        soak.end_all()
    table, faults = soak.verdict()
    print(table)
    if not faults:
        shutil.rmtree(root)
        return 0
    (root / "faults").write_text("".join(f"{fault}\n" for fault in faults), encoding="utf-8")
    print(f"\n{len(faults)} faults; all of them in {root}/faults, everything else beside it")
    print("\n".join(faults[:_SHOWN_FAULTS]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
