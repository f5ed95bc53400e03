"""Message files: `decode` says what they ask for or what is wrong with them, and the messages directory goes on."""

from __future__ import annotations

import os

from fuzzing import Scratch, files_in, is_one_line, lay_out
from twisted.internet.task import Clock

from ncolony.decide.answer import Goal
from ncolony.model import message as messages
from ncolony.model.config import Problem, signal_number
from ncolony.model.names import is_ignored
from ncolony.system.inbox import Inbox, Requests

_PATIENCE_S = 10


def one(data: bytes) -> None:
    """A message is a request or a problem told in one line; and see `_check_inbox`."""
    _check_message(data)
    if files := files_in(data):
        for _, content in files:
            _check_message(content)
        _check_inbox(files)


def _check_message(data: bytes) -> None:
    found = messages.decode("m", data)
    if isinstance(found, Problem):
        assert is_one_line(found.why), found.why
        found.why.encode()
    elif isinstance(found, messages.Signal):
        assert signal_number(found.signal) is not None
    else:
        assert found.__struct_config__.tag in messages.TYPES


def _check_inbox(files: list[tuple[str, bytes]]) -> None:
    """Whatever is in the messages directory and in the answers, each message is acted upon once or set aside."""
    with Scratch() as root:
        for name in ("messages", "answers", "rejected"):
            (root / name).mkdir()
        lay_out(root, files)
        acted: list[str] = []
        clock = Clock()
        inbox = Inbox(clock, f"{root}/messages", f"{root}", lambda name, _: acted.append(name), lambda *_: None)
        requests = Requests(inbox.answer, lambda _: None)
        odd = {entry.name for entry in os.scandir(root / "answers") if not entry.is_file()}
        unfinished = inbox.earlier()
        assert not odd & {name for name, _ in unfinished}
        for name, answer in unfinished:
            if answer.goal in tuple(Goal):
                requests.resume(name, answer)
                for process in answer.since:
                    requests.judge(process, None)
        for _ in range(_PATIENCE_S):
            inbox.scan()
            clock.advance(1)
        inbox.retry()
        assert len(acted) == len(set(acted)), acted
        left = [entry.name for entry in os.scandir(root / "messages") if entry.is_file()]
        assert all(is_ignored(name) for name in left), left
        for path in (root / "rejected").iterdir():
            if path.name.endswith(".reason") and path.is_file():
                assert is_one_line(path.read_text().removesuffix("\n"))
