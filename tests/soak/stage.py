"""What every soak does: a colony that is seen through the deaths of its parts, a ledger, and a list of faults."""

from __future__ import annotations

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
from pathlib import Path
from typing import ClassVar

from chaos.storm import reap_all_but, set_subreaper
from colony import MARK, Colony, environment_of, is_alive
from soak.cast import Player
from soak.judge import Ledger
from soak.measure import Size, now, size_of

# While there is no supervisor, and until it or a new keeper has found out what runs and has ended, a run may be left
# out: nobody is there to start it, or the last one seems to go on.
DISTURBED_S = 10.0
# A process is left alone for so long after each start: a second deed at once would tell nothing.
REST_S = 4.0
# Grace, failures up to the threshold, time-outs, the stop, and a machine that has no time.
PATIENCE_S = 90.0
# Before a killed supervisor is started again.
_PAUSE = (0.0, 0.3)
_TURN_S = 0.02
# A supervisor that ends by itself so often does not come up any more.
_MOST_ENDS = 2
_SHOWN_FAULTS = 30


class Stage:
    """The colony, and what was seen."""

    options: ClassVar[tuple[str, ...]] = ()
    companions: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        root: Path,
        seed: int,
        ledger: Ledger,
        say: Callable[[str], None] = print,
    ) -> None:
        self.colony, self.seed, self.random, self.say = Colony(root), seed, random.Random(seed), say
        self.parts = ("supervisor", "keeper", *self.companions)
        self.players: dict[str, Player] = {}
        self.ledger = ledger
        self.diary = (root / "diary").open("w", encoding="utf-8", buffering=1)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.disturbances: list[tuple[float, float]] = []
        self.killed_at: float | None = None  # the supervisor, and no other is up yet
        self.next_parts: list[str] = []
        self.launch_at = 0.0
        self.launched = False  # and not killed since
        self.later: list[tuple[float, Callable[[], None]]] = []

    # what has to be done again and again

    def turn(self) -> None:
        """See what there is, and do what is due."""
        at = now()
        self.reap()
        self.look()
        due = [deed for when, deed in self.later if when <= at]
        self.later = [(when, deed) for when, deed in self.later if when > at]
        for deed in due:
            deed()
        self.look_after_supervisor(at)

    def look(self) -> None:
        """See what was noted since."""
        self.ledger.read()
        self.ledger.overdue(now(), PATIENCE_S)

    def pause(self) -> None:
        """Wait until the next turn."""
        time.sleep(_TURN_S)

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
            self.disturbances.append((self.killed_at - 1, at + DISTURBED_S))
            self.killed_at = None

    def wait(
        self,
        predicate: Callable[[], bool],
        what: str,
        timeout: float,
        evidence: Callable[[], object] | None = None,
    ) -> bool:
        """Go on until it holds; a fault when it does not in time, with the `evidence`."""
        end = now() + timeout
        while not predicate():
            if now() > end or self.counts["ends"] > _MOST_ENDS:
                self.fault(f"not within {timeout:g} s: {what}: {(evidence or self.missing)()}")
                return False
            self.turn()
            self.pause()
        return True

    def missing(self) -> list[str]:
        """Who has not noted a start, or waits for one; and the parts that are not there."""
        names = [name for name in self.players if not self.ledger.life(name).ups]
        there = self.pids()
        return [*(part for part in self.parts if part not in there), *names, *self.ledger.waits()][:8]

    def all_up(self) -> bool:
        """Whether everybody has noted a start, and every part is there."""
        return not self.missing()

    # from the first to the last

    def launch(self) -> None:
        """Start a supervisor and do not wait for it."""
        colony = self.colony
        with (colony.root / "output").open("ab") as output:
            colony.process = subprocess.Popen(
                colony.command(*self.options),
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
        self.colony.kill_everything(self.reap)
        set_subreaper(False)
        self.ledger.close()
        self.diary.close()

    # what is there

    def pid_of(self, name: str) -> int | None:
        """The pid of a process that is at work and at rest: nothing is expected of it."""
        life = self.ledger.life(name)
        if life.pending is not None or now() - life.calm_since < REST_S:
            return None
        status = self.colony.status(name) or {}
        pid = status.get("pid")
        if status.get("state") != "RUNNING" or not isinstance(pid, int) or not is_alive(pid):
            return None
        # A status that nobody keeps may name a pid that is somebody else's by now.
        return pid if environment_of(pid).get("NCOLONY_NAME") == name else None

    def pids(self) -> dict[str, int]:
        """The parts that are there."""
        assert self.colony.process
        supervisor = self.colony.supervisor() or {}
        found = {"supervisor": supervisor.get("pid"), "keeper": supervisor.get("keeper")}
        found |= {name: (self.colony.status(name) or {}).get("pid") for name in self.companions}
        own = found["supervisor"] == self.colony.process.pid
        return {name: pid for name, pid in found.items() if own and isinstance(pid, int) and is_alive(pid)}

    def sizes_now(self) -> dict[str, Size]:
        """What each part takes, nothing when one is missing."""
        sizes = {name: size_of(pid) for name, pid in self.pids().items()}
        whole = {name: size for name, size in sizes.items() if size is not None}
        return whole if len(whole) == len(self.parts) else {}

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

    def kill_part(self) -> None:
        """SIGKILL supervisor, keeper or a companion."""
        # Each in turn, in an order of chance: in a short time too.
        self.next_parts = self.next_parts or self.random.sample(self.parts, len(self.parts))
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
            self.disturbances.append((now() - 1, now() + DISTURBED_S))
        if part == "supervisor":
            assert self.colony.process
            self.colony.process.wait()
            self.launched, self.killed_at = False, now()
            self.launch_at = now() + self.random.uniform(*_PAUSE)

    def verdict(self) -> tuple[str, list[str]]:
        """A table, and what must not be."""
        raise NotImplementedError

    def run(self, seconds: float) -> None:
        """All of it, for about so long."""
        raise NotImplementedError


def run_and_tell(make: Callable[[Path, int, Callable[[str], None]], Stage], seconds: float = 60.0) -> int:
    """Run a soak, by default for so long, and print what came of it; the exit code. `make(root, seed, say)` makes it.

    The directory is removed when all was well.
    """
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else seconds
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"soak of {seconds:g} s, SEED={seed}, Linux {platform.release()}, {os.cpu_count()} cores, {root}", flush=True)
    # Whoever ends us is not to leave a colony behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    soak = make(root, seed, lambda text: print(text, flush=True))
    try:
        soak.run(seconds)
    except KeyboardInterrupt:
        soak.fault("interrupted")
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
