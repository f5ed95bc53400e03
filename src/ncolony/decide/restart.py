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
    # Defaults for what an earlier version wrote down.
    failures: int = 0  # after so many within `within` it is given up; 0: never
    within: float = 0.0
    retry_after: float | None = None  # seconds after which what was given up is tried again; None: never
    on_exit: str = "restart"
    on_give_up: str = "restart"
    ready_timeout: float | None = None  # how long it has to show that it is ready; None: it does not show it
    watchdog: float | None = None  # it says that it lives at least this often
    job: bool = False  # it runs when somebody says so, and is left at that


class Exit(msgspec.Struct, frozen=True):
    """How an instance ended. Neither code nor signal: nobody knows. `refused` says why it could not even start.

    `fault` says why it is ended by us, for which it is to blame.
    """

    code: int | None = None
    signal: int | None = None
    lived: float = 0.0
    core: bool = False
    refused: str = ""
    signal_name: str = ""
    out_of_memory: bool = False
    fault: str = ""

    def __str__(self) -> str:
        if self.refused or self.fault:
            return self.refused or self.fault
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
    GIVE_UP = "give up"
    END = "end"  # of the whole colony


class Decision(msgspec.Struct, frozen=True):
    """`action` after `delay` seconds, because of `reason`; `next_delay` is what another instant death would wait."""

    action: Action
    delay: float
    next_delay: float
    reason: str


def is_success(policy: Policy, ended: Exit) -> bool:
    """Whether this end is no failure by its exit code alone."""
    return ended.code in policy.success_codes and not ended.refused


def is_failure(policy: Policy, ended: Exit) -> bool:
    """Whether this end counts against the process: not a success, or too soon."""
    return not is_success(policy, ended) or ended.lived < policy.threshold


def rests(policy: Policy, ended: Exit) -> bool:
    """Whether a process that ended like this is left at that."""
    return policy.restart == "never" or (policy.restart == "on-failure" and is_success(policy, ended))


def decide(policy: Policy, ended: Exit, delay: float, luck: float, failures: int = 0) -> Decision:
    """What follows `ended`.

    `delay` is the one that is due (0: none yet, so the policy's least); `luck` in [0, 1] is this time's share of
    the jitter; `failures` is how many there were within `policy.within`, this one included.
    """
    told = str(ended) if ended.refused or ended.fault else f"{ended} after {ended.lived:.3g} s"
    if policy.on_exit == "shutdown":
        return Decision(Action.END, 0.0, 0.0, told)
    if rests(policy, ended):
        return Decision(Action.REST, 0.0, 0.0, told)
    if policy.failures and failures >= policy.failures:
        times = f"{failures} failure{'' if failures == 1 else 's'} within {policy.within:g} s"
        return Decision(Action.GIVE_UP, policy.retry_after or 0.0, 0.0, f"given up after {times}: {told}")
    if ended.lived >= policy.threshold and not ended.refused:
        return Decision(Action.START, 0.0, 0.0, told)
    due = min(max(delay, policy.min_delay), policy.max_delay)
    wait = min(due * (1 + policy.jitter * luck), policy.max_delay)
    doubled = min(max(due * 2, _FIRST_STEP_S), policy.max_delay)
    return Decision(Action.WAIT, wait, doubled, told)


def exit_code(ended: Exit) -> int:
    """The exit code of a colony that ends because this instance did, as a shell would report it."""
    if ended.refused:
        return 127
    if ended.code is not None:
        return ended.code
    return 1 if ended.signal is None else 128 + ended.signal
