"""Messages: in order, each once; what makes no sense is set aside and holds up nobody."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from ncolony.model.message import Answer, Message, Restart, Scan
from ncolony.system.inbox import Inbox


class Post:
    """An inbox with directories of its own, a clock that is turned by hand, and what was acted on."""

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.messages, self.state = root / "messages", root / "state"
        for directory in (self.messages, self.state, *(self.state / name for name in ("answers", "rejected"))):
            directory.mkdir()
        self.acted: list[tuple[str, Message]] = []
        self.inbox = self.another()

    def another(self) -> Inbox:
        """The inbox of the next supervisor."""

        def act(name: str, message: Message) -> None:
            self.acted.append((name, message))
            self.inbox.answer(name, Answer(accepted=True, state="done"))

        self.inbox = Inbox(self.clock, str(self.messages), str(self.state), act, lambda what, problem: None)
        return self.inbox

    def put(self, name: str, data: bytes, at: int = 1_000_000_000) -> None:
        """Write a message as if it were written at that second."""
        path = self.messages / name
        path.write_bytes(data)
        os.utime(path, (at, at))

    def answer(self, name: str) -> dict[str, Any] | None:
        """What was answered to the message in a file."""
        path = self.state / "answers" / name
        found: dict[str, Any] | None = json.loads(path.read_bytes()) if path.exists() else None
        return found

    def wait(self, seconds: float) -> None:
        """Let time pass, in steps."""
        self.clock.pump([seconds / 10] * 10)


@pytest.fixture
def post(tmp_path: Path) -> Post:
    """An empty inbox."""
    return Post(tmp_path)


def restart(name: str) -> bytes:
    return json.dumps({"type": "RESTART", "name": name}).encode()


def test_order(post: Post) -> None:
    """Messages are acted on in the order of their time, then their name, and are gone afterwards."""
    post.put("z", restart("1"), 100)
    post.put("b", restart("3"), 300)
    post.put("a", restart("2"), 300)
    post.put("c", b'{"type": "SCAN"}', 200)
    post.inbox.scan()
    assert post.acted == [("z", Restart("1")), ("c", Scan()), ("a", Restart("2")), ("b", Restart("3"))]
    assert list(post.messages.iterdir()) == []
    post.inbox.scan()
    assert len(post.acted) == 4


def test_hint_names_some(post: Post) -> None:
    """A hint has only the named messages read."""
    post.inbox.scan()
    post.put("a", restart("1"))
    post.put("b", restart("2"))
    post.inbox.scan(["b", "nothing", ".hidden"])
    assert post.acted == [("b", Restart("2"))]
    post.inbox.scan(["b", "a"])
    assert post.acted == [("b", Restart("2")), ("a", Restart("1"))]


def test_a_flood_leaves_turns_to_others(post: Post) -> None:
    """Of many messages only some are handled at a time, the oldest first, whatever comes meanwhile; then the others."""
    for number in range(20):
        post.put(f"m{number:02d}", restart(str(number)), 10 + number)
    post.inbox.scan()
    handled = len(post.acted)
    assert 1 <= handled < 20
    post.put("old", restart("old"), 1)
    post.inbox.scan(["old"])
    assert post.acted[handled] == ("old", Restart("old"))
    post.wait(0.0)
    assert [name for name, _ in post.acted if name != "old"] == [f"m{number:02d}" for number in range(20)]


def test_hundred_with_poison_among_them(post: Post) -> None:
    """Messages that make no sense hold up none of the others."""
    for number in range(100):
        post.put(f"{number:03d}", b"\xff{" if number % 3 == 0 else restart(str(number)), number)
    post.inbox.scan()
    post.wait(0.0)
    assert [message for _, message in post.acted] == [Restart(str(n)) for n in range(100) if n % 3]
    post.wait(2.1)
    assert list(post.messages.iterdir()) == []
    assert len(list((post.state / "rejected").glob("*.reason"))) == 34


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"noise", b"5", b"null", b"[]", b'"RESTART"', b"{}", b"\xff\xfe", b"[" * 100_000),
        *(b'{"type": "UNHEARD-OF"}', b'{"type": "RESTART"}', b'{"type": "RESTART", "name": 5}'),
        b'{"type": "RESTART", "name": "a"',
    ],
    ids=lambda data: data[:20].decode("ascii", "replace") or "empty",
)
def test_nonsense_is_rejected_with_a_reason(post: Post, data: bytes) -> None:
    """What makes no sense is set aside, with its reason beside it, and answered, once it was still for 2 s."""
    post.put("m", data)
    post.inbox.scan()
    post.wait(1.9)
    assert (post.messages / "m").exists()
    assert post.answer("m") is None
    post.wait(0.2)
    assert list(post.messages.iterdir()) == []
    assert (post.state / "rejected" / "m").read_bytes() == data
    reason = (post.state / "rejected" / "m.reason").read_text()
    assert len(reason.splitlines()) == 1
    assert len(reason) > 5
    answer = post.answer("m")
    assert answer
    assert (answer["accepted"], answer["state"]) == (False, "failed")
    assert answer["why"]
    assert post.acted == []


def test_slowly_written_message(post: Post) -> None:
    """A message that is still being written is waited for as long as it changes, and acted on when it is whole."""
    whole = restart("slow")
    for length in range(1, len(whole), 5):
        post.put("m", whole[:length], length)
        post.inbox.scan(["m"])
        post.wait(1.5)
        assert post.answer("m") is None
    assert list((post.state / "rejected").iterdir()) == []
    post.put("m", whole, 1000)
    post.inbox.scan(["m"])
    assert post.acted == [("m", Restart("slow"))]
    post.wait(5)
    assert list((post.state / "rejected").iterdir()) == []


def test_what_is_not_a_file(post: Post) -> None:
    """A FIFO, a link to nothing and a file too large are set aside too; directories and hidden files are left alone."""
    os.mkfifo(post.messages / "fifo")
    (post.messages / "dangling").symlink_to("nowhere")
    post.put("large", b" " * (2 << 20))
    (post.messages / "directory").mkdir()
    post.put(".hidden", b"")
    post.put("half.new", restart("x"))
    post.inbox.scan()
    post.wait(2.5)
    assert {path.name for path in post.messages.iterdir()} == {"directory", ".hidden", "half.new"}
    rejected = {path.name for path in (post.state / "rejected").iterdir()}
    assert rejected == {"fifo", "fifo.reason", "dangling", "dangling.reason", "large", "large.reason"}


def test_nonsense_that_is_taken_back(post: Post) -> None:
    """A message that makes no sense and is removed in time was never there."""
    post.put("m", b"noise")
    post.inbox.scan()
    (post.messages / "m").unlink()
    post.wait(3)
    assert list((post.state / "rejected").iterdir()) == []
    assert post.answer("m") is None


def test_message_that_an_earlier_supervisor_acted_on(post: Post) -> None:
    """A message that was answered, and whose supervisor died before removing it, is not acted on again."""
    post.put("m", restart("a"))
    post.inbox.answer("m", Answer(accepted=True, state="done"))
    post.another().scan()
    assert post.acted == []
    assert list(post.messages.iterdir()) == []
    # The same name used again later is another message.
    post.put("m", restart("b"), int(time.time()) + 10)
    post.inbox.scan()
    assert post.acted == [("m", Restart("b"))]


def test_messages_wait_for_a_supervisor(post: Post) -> None:
    """What was written while no supervisor ran is acted on at its start."""
    post.put("m", restart("a"))
    post.another().scan()
    assert post.acted == [("m", Restart("a"))]


def test_answers_go_after_an_hour(post: Post) -> None:
    """An answer is kept for an hour since it was last written."""
    post.inbox.answer("first", Answer(accepted=True, state="done"))
    post.inbox.answer("second", Answer(accepted=True, state="accepted"))
    post.clock.advance(1800)
    post.inbox.answer("second", Answer(accepted=True, state="done"))
    post.clock.advance(1700)
    post.inbox.scan()
    assert post.answer("first")
    post.clock.advance(200)
    post.inbox.scan()
    assert post.answer("first") is None
    assert post.answer("second") == {"accepted": True, "state": "done", "why": "", "names": [], "generation": ""}
    post.clock.advance(1800)
    post.inbox.scan()
    assert post.answer("second") is None


def test_answers_of_an_earlier_supervisor_go_too(post: Post) -> None:
    """An earlier supervisor's answers, however old they seem, are removed an hour after the start."""
    for name, age in (("old", 4000), ("young", 10)):
        post.inbox.answer(name, Answer(accepted=True, state="done"))
        then = time.time() - age
        os.utime(post.state / "answers" / name, (then, then))
    post.another().earlier()
    for name in ("old", "young"):
        assert post.answer(name)
    post.clock.advance(3601)
    post.inbox.scan()
    for name in ("old", "young"):
        assert post.answer(name) is None


def test_missing_directories(post: Post) -> None:
    """A message directory that vanished is an error for the caller; missing answers are nobody's end."""
    post.put("m", restart("a"))
    (post.state / "answers").rmdir()
    post.inbox.scan()
    assert post.acted == [("m", Restart("a"))]
    post.messages.rmdir()
    with pytest.raises(FileNotFoundError):
        post.inbox.scan()
