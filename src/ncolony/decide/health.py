"""What checks found of an instance becomes a verdict on it, and one restart of it at most.

Thresholds count runs of equal results, as kubelet's probes do. Once a restart was asked for, nothing is judged until
there is a new instance, which has its grace (kubelet's prober calls that "on hold").
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Rule(msgspec.Struct, frozen=True):
    """How one check is judged. For `grace` seconds after the start of an instance its failures do not count.

    `restarts` says that a restart follows when it fails, instead of the verdict alone.
    """

    failure_threshold: int = 3
    success_threshold: int = 1
    grace: float = 0.0
    restarts: bool = True


class Tally(msgspec.Struct, frozen=True):
    """What one check has found: the last `run` results that count were all `good`, or all not.

    `healthy` is what follows from them: None as long as no threshold was reached. `why` tells of the newest failure.
    """

    healthy: bool | None = None
    good: bool = False
    run: int = 0
    why: str = ""


class Health(msgspec.Struct, frozen=True):
    """One instance of a process: its number, when it started (monotonic seconds), and what each check has found.

    `told` is the verdict that the supervisor knows of, `held` says that a restart of this instance was asked for.
    """

    instance: int
    started: float
    tallies: tuple[Tally, ...]
    told: bool | None = None
    held: bool = False

    @property
    def verdict(self) -> bool | None:
        """Unhealthy if one check says so, healthy if all do; None as long as nobody can know."""
        found = [tally.healthy for tally in self.tallies]
        if False in found:
            return False
        return True if found and all(found) else None

    @property
    def why(self) -> str:
        """Why it is not healthy."""
        return "; ".join(tally.why for tally in self.tallies if tally.healthy is False)


class Step(msgspec.Struct, frozen=True):
    """What follows: the new state; a verdict to tell, if there is a new one; why to restart, or ""."""

    health: Health
    tell: bool | None = None
    restart: str = ""


def begin(checks: int, instance: int, started: float, told: bool | None = None, held: bool = False) -> Health:
    """There is a new instance, or we are new: nothing was found yet.

    `told` and `held`: what an earlier checker has told of this instance, and whether it has asked for its restart.
    """
    return Health(instance, started, (Tally(),) * checks, told, held)


def changed(health: Health, checks: int) -> Health:
    """The same instance has other checks: what was found counts no more, what was asked for still does."""
    return msgspec.structs.replace(health, tallies=(Tally(),) * checks)


def noted(
    health: Health, rules: Sequence[Rule], instance: int, check: int, good: bool, why: str, now: float
) -> Step:  # fmt: skip
    """A check has a result about an instance; `why` says what is wrong if it is not `good`.

    Results about a former instance, or a check that there is no more, change nothing.
    """
    if health.held or instance != health.instance or not 0 <= check < len(health.tallies):
        return Step(health)
    rule, tally = rules[check], health.tallies[check]
    if not good and now - health.started < rule.grace:
        # It does not count, but neither were there only successes.
        tally = msgspec.structs.replace(tally, run=0)
    else:
        tally = _counted(tally, rule, good, why)
    tallies = (*health.tallies[:check], tally, *health.tallies[check + 1 :])
    health = msgspec.structs.replace(health, tallies=tallies)
    tell = health.verdict if health.verdict != health.told else None
    if tell is not None:
        health = msgspec.structs.replace(health, told=tell)
    guilty = [one.why for one, its in zip(tallies, rules, strict=True) if one.healthy is False and its.restarts]
    if not guilty:
        return Step(health, tell)
    return Step(msgspec.structs.replace(health, held=True), tell, "; ".join(guilty))


def _counted(tally: Tally, rule: Rule, good: bool, why: str) -> Tally:
    run = tally.run + 1 if tally.run and tally.good is good else 1
    enough = run >= (rule.success_threshold if good else rule.failure_threshold)
    return Tally(good if enough else tally.healthy, good, run, tally.why if good else why)
