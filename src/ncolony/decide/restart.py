"""How an instance ended + its policy + its history -> what next, how long from now, and why."""

from __future__ import annotations

import enum

import msgspec

# A delay that starts at 0 could never double: this is what follows a zero minimum, where the maximum allows it.
_FIRST_STEP_S = 0.05


class Policy(msgspec.Struct, frozen=True):
    """What governs a process apart from its launch. Seconds throughout; `stop` is (signal number, seconds) per step."""

    threshold: float
    min_delay: float
    max_delay: float
    jitter: float
    restart: str
    success_codes: tuple[int, ...]
    stop: tuple[tuple[int, float], ...]
    scope: str


class Exit(msgspec.Struct, frozen=True):
    """How an instance ended. Neither code nor signal: nobody knows. `refused` says why it could not even start."""

    code: int | None = None
    signal: int | None = None
    lived: float = 0.0
    core: bool = False
    refused: str = ""
    signal_name: str = ""
    out_of_memory: bool = False

    def __str__(self) -> str:
        if self.refused:
            return self.refused
        if self.code is not None:
            return f"exit code {self.code}"
        if self.signal is not None:
            return f"killed by {self.signal_name or self.signal}" + (
                " (out of memory)" if self.out_of_memory else " (core dumped)" if self.core else ""
            )
        return "ended, nobody knows how"


class Action(enum.Enum):
    """What follows an exit."""

    START = "start"
    WAIT = "wait"
    REST = "rest"


class Decision(msgspec.Struct, frozen=True):
    """`action` after `delay` seconds, because of `reason`; `next_delay` is what another instant death would wait."""

    action: Action
    delay: float
    next_delay: float
    reason: str


def decide(policy: Policy, ended: Exit, delay: float, luck: float) -> Decision:
    """What follows `ended`.

    `delay` is the one that is due (0: none yet, so the policy's least); `luck` in [0, 1] is this time's share of
    the jitter.
    """
    success = ended.code in policy.success_codes and not ended.refused
    told = str(ended) if ended.refused else f"{ended} after {ended.lived:.3g} s"
    if policy.restart == "never" or (policy.restart == "on-failure" and success):
        return Decision(Action.REST, 0.0, 0.0, told)
    if ended.lived >= policy.threshold and not ended.refused:
        return Decision(Action.START, 0.0, 0.0, told)
    due = min(max(delay, policy.min_delay), policy.max_delay)
    wait = min(due * (1 + policy.jitter * luck), policy.max_delay)
    doubled = min(max(due * 2, _FIRST_STEP_S), policy.max_delay)
    return Decision(Action.WAIT, wait, doubled, told)
