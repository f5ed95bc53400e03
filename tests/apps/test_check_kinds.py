"""What each kind of check finds: real servers that behave in all ways, real programs, real files."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colony import SLEEP, is_alive
from ward import Server, Ward, answering, drop, killed, silent, status, wait_for

QUICK = {"period": 0.1, "timeout": 0.4, "failure_threshold": 1, "action": "report"}
Serve = Callable[..., Server]


def verdict(ward: Ward, *checks: dict[str, Any], **keys: Any) -> tuple[str, str]:
    """What is told first of a process with these checks: healthy or unhealthy, and why."""
    ward.put("web", check=[{**QUICK, **check} for check in checks], **keys)
    ward.say("web")
    ward.check()
    [told] = ward.take()
    assert (told["type"], told["name"], told["instance"]) == ("REPORT", "web", 1)
    return told["what"], told["why"]


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.mark.parametrize("code", [200, 204, 301, 302, 399])
def test_http_success(ward: Ward, serve: Serve, code: int) -> None:
    """Every status from 200 to 399 is a success; a redirect is one, and is not followed."""
    server = serve(answering(f"HTTP/1.1 {code} So\r\nLocation: http://127.0.0.1:1/\r\n\r\n".encode()))
    assert verdict(ward, {"http": f"http://127.0.0.1:{server.port}/"}) == ("healthy", "")


@pytest.mark.parametrize("code", [400, 404, 500, 503])
def test_http_bad_status(ward: Ward, serve: Serve, code: int) -> None:
    """Any other status is a failure, which is named."""
    url = f"http://127.0.0.1:{serve(status(code)).port}/health?x=1"
    assert verdict(ward, {"http": url}) == ("unhealthy", f"http {url}: status {code}")


def drip(connection: socket.socket, server: Server) -> None:
    """Answer, one byte now and then."""
    server.request(connection)
    for byte in b"HTTP/1.1 200 OK\r\n\r\n" * 100:
        connection.sendall(bytes([byte]))
        if server.stopped.wait(0.1):
            return


def headers_for_ever(connection: socket.socket, server: Server) -> None:
    server.request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Long: " + b"x" * 8000 + b"\r\n")


ODD = [
    ("silent", silent, "no answer within 0.4 s"),
    ("drip", drip, "no answer within 0.4 s"),
    ("drop", drop, "closed without an answer"),
    ("half", answering(b"HTTP/1.1 200 OK\r\nX: "), "closed in the middle of its answer: HTTP/1.1 200 OK"),
    ("garbage", answering(b"SSH-2.0-OpenSSH\x1b[31m\r\n"), "no HTTP: SSH-2.0-OpenSSH\\x1b[31m"),
    ("almost", answering(b"HTTP/1.1 2x0 OK\r\n\r\n"), "no HTTP: HTTP/1.1 2x0 OK"),
    ("headers", headers_for_ever, "headers of more than 65536 bytes"),
]


@pytest.mark.parametrize(("behaviour", "why"), [pytest.param(b, w, id=i) for i, b, w in ODD])
def test_http_odd_servers(ward: Ward, serve: Serve, behaviour: Any, why: str) -> None:
    """A server that is silent, slow, hangs up, talks nonsense or has no end is unhealthy in time, with the reason."""
    url = f"http://127.0.0.1:{serve(behaviour).port}/"
    found = verdict(ward, {"http": url})
    assert found == ("unhealthy", f"http {url}: {why}")


def endless_body(connection: socket.socket, server: Server) -> None:
    server.request(connection)
    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    try:
        while not server.stopped.is_set():
            connection.sendall(b"x" * 65536)
    except OSError:
        server.requests.append(b"hung up")


def test_http_endless_body(ward: Ward, serve: Serve) -> None:
    """The headers decide, after interim answers; a body without end is not read to it."""
    server = serve(endless_body)
    assert verdict(ward, {"http": f"http://127.0.0.1:{server.port}/"}) == ("healthy", "")
    wait_for(lambda: b"hung up" in server.requests, "the connection is closed")


def test_http_request(ward: Ward, serve: Serve) -> None:
    """The request names path, query and host; a password in the URL is sent, and shown nowhere."""
    server = serve(status(500))
    what, why = verdict(ward, {"http": f"http://me:s%20cret@localhost:{server.port}/a/b?c=d#e"})
    assert (what, why) == ("unhealthy", f"http http://localhost:{server.port}/a/b?c=d: status 500")
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /a/b?c=d HTTP/1.1"
    assert f"Host: localhost:{server.port}" in lines
    assert f"Authorization: Basic {base64.b64encode(b'me:s cret').decode()}" in lines
    assert "cret" not in "".join(ward.said())


def test_ipv6(ward: Ward, serve: Serve) -> None:
    """An IPv6 address is asked, and named in brackets."""
    try:
        server = serve(status(200), socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    checks = ({"http": f"http://[::1]:{server.port}"}, {"tcp": f"[::1]:{server.port}"}, {"tcp": str(server.port)})
    assert verdict(ward, *checks) == ("healthy", "")
    assert f"Host: [::1]:{server.port}".encode() in next(filter(None, server.requests))


def test_tcp(ward: Ward, serve: Serve) -> None:
    """A connection that can be opened is a success, whatever follows."""
    assert verdict(ward, {"tcp": f"127.0.0.1:{serve(silent).port}"}) == ("healthy", "")


@pytest.mark.parametrize("host", ["127.0.0.1:", "localhost:", ""])
def test_refused(ward: Ward, host: str) -> None:
    """Where nobody listens the connection is refused."""
    place = f"{host}{free_port()}"
    assert verdict(ward, {"tcp": place}) == ("unhealthy", f"tcp {place}: connection refused")


def test_unknown_host(ward: Ward) -> None:
    """A host that there is not is named."""
    what, why = verdict(ward, {"tcp": "no-such-host.invalid:80", "timeout": 30})
    assert what == "unhealthy"
    assert why.startswith("tcp no-such-host.invalid:80: cannot find no-such-host.invalid")


def test_unhealthy_if_one_is(ward: Ward, serve: Serve) -> None:
    """Of several checks one is enough, and the reason names it alone."""
    good, bad = serve(status(200)), serve(status(500))
    checks = [{"http": f"http://127.0.0.1:{server.port}/"} for server in (good, bad)]
    assert verdict(ward, *checks) == ("unhealthy", f"http http://127.0.0.1:{bad.port}/: status 500")


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority (ca.pem), and a server's certificate for localhost by it."""
    root = tmp_path_factory.mktemp("certificates")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ours = ["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"]
    subject = ["-subj", "/CN=server", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem"]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-out", "cert.pem", "-days", "2"]
    for more in (ours, [*subject, "-addext", "basicConstraints=critical,CA:FALSE", *signed]):
        subprocess.run([*make, *more], cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def tls(certificates: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    return context


def https(ward: Ward, url: str, trusted: Path, **more: Any) -> tuple[str, str]:
    ward.put("web", check=[{**QUICK, "timeout": 20, "http": url, **more}])
    ward.say("web")
    ward.check("ncolony-check", SSL_CERT_FILE=str(trusted))
    [told] = ward.take()
    return told["what"], told["why"]


def test_https(ward: Ward, serve: Serve, certificates: Path, tls: ssl.SSLContext) -> None:
    """A server whose certificate is signed by an authority that the system trusts is believed."""
    server = serve(status(200), context=tls)
    assert https(ward, f"https://localhost:{server.port}/", certificates / "ca.pem") == ("healthy", "")


def test_https_status(ward: Ward, serve: Serve, certificates: Path, tls: ssl.SSLContext) -> None:
    """What is answered over TLS counts."""
    url = f"https://localhost:{serve(status(503), context=tls).port}/"
    assert https(ward, url, certificates / "ca.pem") == ("unhealthy", f"http {url}: status 503")


def test_https_other_authority(ward: Ward, serve: Serve, certificates: Path, tls: ssl.SSLContext) -> None:
    """A server whose certificate nobody known has signed is not believed."""
    url = f"https://localhost:{serve(status(200), context=tls).port}/"
    what, why = https(ward, url, certificates / "none.pem")
    assert what == "unhealthy"
    assert why.startswith(f"http {url}: its certificate is not accepted: ")


def test_https_other_host(ward: Ward, serve: Serve, certificates: Path, tls: ssl.SSLContext) -> None:
    """A certificate for another host is not accepted."""
    url = f"https://127.0.0.1:{serve(status(200), context=tls).port}/"
    what, why = https(ward, url, certificates / "ca.pem")
    assert what == "unhealthy"
    assert "its certificate is not accepted: IP address mismatch" in why


def test_https_insecure(ward: Ward, serve: Serve, certificates: Path, tls: ssl.SSLContext) -> None:
    """With `insecure` any certificate will do."""
    server = serve(status(200), context=tls)
    found = https(ward, f"https://127.0.0.1:{server.port}/", certificates / "none.pem", insecure=True)
    assert found == ("healthy", "")


def test_https_on_a_server_without_it(ward: Ward, serve: Serve, certificates: Path) -> None:
    """A server that speaks no TLS is unhealthy, with the reason."""
    url = f"https://localhost:{serve(lambda connection, _: connection.sendall(b'220 mail' * 99)).port}/"
    what, why = https(ward, url, certificates / "ca.pem")
    assert (what, why.startswith(f"http {url}: no TLS: ")) == ("unhealthy", True), why


# programs


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def test_exec_success(ward: Ward) -> None:
    """A program that ends with 0 is a success."""
    assert verdict(ward, {"exec": ["true"]}, env={"PATH": os.environ["PATH"]}) == ("healthy", "")


FAILING = [
    (["sh", "-c", "echo one; echo two >&2; exit 3"], "exit code 3: two"),
    (["false"], "exit code 1"),
    (["sh", "-c", "kill -SEGV $$"], "killed by SIGSEGV"),
    (["sh", "-c", "printf 'bad \\033[31m'; exit 1"], "exit code 1: bad \\x1b[31m"),
    (["no-such-program"], "cannot run 'no-such-program': not found on PATH"),
    (["/no/such/program"], "cannot run /no/such/program: no such file or directory"),
    (["sh", "-c", "echo waiting; sleep 60"], "no end within 0.4 s: waiting"),
]


@pytest.mark.parametrize(("command", "why"), FAILING)
def test_exec_failure(ward: Ward, command: list[str], why: str) -> None:
    """A program that fails, is killed, is missing or does not end is a failure; what it printed last is told."""
    what, told = verdict(ward, {"exec": command}, env={"PATH": os.environ["PATH"]})
    assert what == "unhealthy"
    assert told.startswith("exec ") and told.endswith(f": {why}"), told


def test_exec_surroundings(ward: Ward) -> None:
    """It runs in the directory, with the environment and the umask of the process, and descriptors of its own."""
    (ward.root / "somewhere").mkdir()
    (ward.root / "variables").write_text("FROM_FILE=f\n")
    (ward.root / "secret").write_text("s3cret\n")
    code = (
        "import json, os; umask = os.umask(0); fds = sorted(os.listdir('/proc/self/fd'), key=int);"
        "found = [dict(os.environ), os.getcwd(), umask, fds, os.getpgid(0) == os.getpid()];"
        "open('found', 'w').write(json.dumps(found))"
    )
    keys: dict[str, Any] = {"cwd": "somewhere", "umask": "027", "env": {"A": "a"}, "env_inherit": ["PA?H"]}
    keys |= {"env_file": "../variables", "env_secret": {"SECRET": "../secret"}, "instances": 2}
    ward.put("web", check=[{**QUICK, "timeout": 20, "exec": python(code), "period": 60}], **keys)
    ward.say("web:1", file="web")
    ward.check()
    [told] = ward.take()
    assert (told["name"], told["what"]) == ("web:1", "healthy")
    environ, cwd, umask, fds, own_group = json.loads((ward.root / "somewhere" / "found").read_text())
    config = json.loads(environ.pop("NCOLONY_CONFIG"))
    assert config["env"] == {"A": "a"}
    environ.pop("LC_CTYPE", None)  # of Python's own making
    assert environ == {
        "A": "a",
        "PATH": os.environ["PATH"],
        "FROM_FILE": "f",
        "SECRET": "s3cret",
        "NCOLONY_NAME": "web:1",
        "NCOLONY_INDEX": "1",
    }
    assert (cwd, umask, own_group) == (str(ward.root / "somewhere"), 0o027, True)
    assert fds[:3] == ["0", "1", "2"] and len(fds) == 4, fds  # and the one that lists them
    assert "s3cret" not in ward.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_exec_as_the_user(ward: Ward) -> None:
    """It runs as the user and the groups of the process."""
    command = ["/bin/sh", "-c", "echo $(id -u) $(id -g) $(id -G); exit 1"]
    what, why = verdict(ward, {"exec": command, "timeout": 20}, uid=12345, env={"PATH": os.environ["PATH"]})
    assert what == "unhealthy"
    assert why.endswith("exit code 1: 12345 12345 12345"), why


@pytest.fixture
def open_ward() -> Iterator[Ward]:
    """Directories that everybody may write (pytest's own are private)."""
    root = Path(tempfile.mkdtemp(prefix="ward-"))
    root.chmod(0o755)
    found = Ward(root / "w")
    try:
        found.supervise()
        for path in (found.root, found.messages, found.state, found.state / "answers"):
            path.chmod(0o777)
        (found.state / "supervisor.lock").chmod(0o666)
        yield found
        found.close()
    finally:
        shutil.rmtree(root)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes root, to become somebody else")
def test_exec_as_another_user_without_root(open_ward: Ward) -> None:
    """Who is not root cannot run it as another user: that is a problem said once, and no verdict."""
    ward, marker = open_ward, open_ward.root / "marker"
    ward.put("web", uid=0, check=[{**QUICK, "exec": ["true"]}])
    ward.put("other", check=[{**QUICK, "exec": ["/bin/sh", "-c", f"echo x >>{marker}"]}])
    ward.say("web")
    ward.say("other")
    # Python itself may be where others cannot read.
    become = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all,+dac_read_search".split()
    with ward.log.open("ab") as log:
        command = [*become, "--ambient-caps=-all,+dac_read_search", *ward.command()]
        ward.checkers.append(subprocess.Popen(command, cwd=ward.root, stdout=log, stderr=log))
    wait_for(lambda: marker.exists() and marker.stat().st_size > 10, "the other is checked", evidence=ward.evidence)
    why = "cannot check web: exec true: cannot become user 0: the supervisor does not run as root"
    assert ward.said().count(why) == 1, ward.said()
    assert {message["name"] for message in ward.waiting().values()} == {"other"}


def test_exec_leaves_nothing(ward: Ward) -> None:
    """What a program leaves in its group is killed, whether it ended or took too long; nobody is a zombie."""
    pids = ward.root / "pids"
    code = f"echo $$ >>{pids}; {SLEEP} 1000 & echo $! >>{pids}; [ -e {ward.root}/slow ] && wait; exit 1"
    ward.put("web", check=[{**QUICK, "exec": ["sh", "-c", code]}])
    ward.say("web")
    checker = ward.check()

    def noted() -> list[int]:
        return [int(line) for line in pids.read_text().splitlines()] if pids.exists() else []

    wait_for(lambda: len(noted()) >= 4, "it ran twice")
    (ward.root / "slow").touch()
    count = len(noted())
    wait_for(lambda: len(noted()) >= count + 4, "it ran twice more")
    before = noted()[: count + 2]
    wait_for(lambda: not any(is_alive(pid) for pid in before), "they are gone")

    def children() -> list[str]:
        return Path(f"/proc/{checker.pid}/task/{checker.pid}/children").read_text().split()

    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before[::2]), "no zombie is left")
    checker.send_signal(signal.SIGTERM)
    assert checker.wait(20) == 0
    wait_for(lambda: not any(is_alive(pid) for pid in noted()), "the last one is gone too")


def test_exec_floods(ward: Ward) -> None:
    """A program that prints without end is cut off in time, and costs no memory."""
    ward.put("web", check=[{**QUICK, "exec": ["sh", "-c", "while :; do echo y; done | tr y z | cat; exit 1"]}])
    ward.say("web")
    checker = ward.check()
    [told] = ward.take()
    assert told["why"].endswith(": no end within 0.4 s: z"), told
    resident = int(Path(f"/proc/{checker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 200 << 20


# heartbeats


def test_heartbeat_that_stops(ward: Ward) -> None:
    """A file that is touched is a success; when it is touched no more, that is a failure, with the time."""
    beat = ward.root / "beat"
    ward.put("web", check=[{"heartbeat": str(beat), "period": 2, "action": "report"}])
    beat.touch()
    ward.say("web")
    ward.check()

    def alive() -> bool:
        beat.touch()
        return bool(ward.waiting())

    wait_for(alive, "it is healthy")
    assert [message["what"] for message in ward.take()] == ["healthy"]
    [told] = ward.take()
    assert told["what"] == "unhealthy"
    seconds = float(told["why"].removeprefix(f"heartbeat {beat}: not touched for ").removesuffix(" s"))
    assert 2 <= seconds < 30
    beat.touch()
    wait_for(alive, "it is healthy again")
    assert [message["what"] for message in ward.take()] == ["healthy"]


def test_heartbeat_missing(ward: Ward) -> None:
    """A file that is not there was never touched, since the start of the instance."""
    what, why = verdict(ward, {"heartbeat": "no/such", "period": 1})
    assert what == "unhealthy"
    assert 999 < float(why.removeprefix("heartbeat no/such: not touched for ").removesuffix(" s")) < 2000


def test_heartbeat_in_a_directory(ward: Ward) -> None:
    """Of a directory the file with the process's name counts, for each copy its own; below the working directory."""
    (ward.root / "work" / "beats").mkdir(parents=True)
    for name in ("web:0", "other"):
        (ward.root / "work" / "beats" / name).touch()
    ward.put("web", cwd="work", instances=2, check=[{"heartbeat": "beats", "period": 60, "action": "report"}])
    for index in range(2):
        ward.say(f"web:{index}", file="web")
    ward.check()
    found = {message["name"]: message["what"] for message in ward.take(2)}
    assert found == {"web:0": "healthy", "web:1": "unhealthy"}


def test_heartbeat_of_a_former_instance(ward: Ward) -> None:
    """What a former instance touched makes nobody healthy, and a new one has a whole period."""
    beat = ward.root / "beat"
    beat.touch()
    old = time.time() - 30
    os.utime(beat, (old, old))
    started = time.time()
    ward.put("web", check=[{"heartbeat": str(beat), "period": 1.5, "action": "report"}])
    ward.say("web", started=started)
    ward.check()
    [told] = ward.take()
    assert told["what"] == "unhealthy"
    assert time.time() - started > 1.5


def test_heartbeat_in_the_future(ward: Ward) -> None:
    """A file from a time to come, since the clock was set back, is watched by its changes."""
    beat = ward.root / "beat"
    beat.touch()
    future = time.time() + 3600
    os.utime(beat, (future, future))
    ward.put("web", check=[{"heartbeat": str(beat), "period": 0.5, "action": "report"}])
    ward.say("web")
    ward.check()
    first, second = ward.take()[0], ward.take()[0]
    assert [first["what"], second["what"]] == ["healthy", "unhealthy"]


# many


def test_slow_servers_delay_nobody(ward: Ward, serve: Serve) -> None:
    """While 150 servers do not answer, more than are asked at once, the others are checked in time."""
    slow, quick = serve(silent), serve(status(200))
    for number in range(150):
        check = {"http": f"http://127.0.0.1:{slow.port}/", "period": 0.5, "timeout": 55, "action": "report"}
        ward.put(f"slow{number}", check=[check])
        ward.say(f"slow{number}")
    ward.check()
    wait_for(lambda: slow.accepted >= 150, "all slow ones are being asked")
    for number in range(20):
        ward.put(f"quick{number}", check=[{**QUICK, "http": f"http://127.0.0.1:{quick.port}/", "timeout": 5}])
        ward.say(f"quick{number}")
    began = time.monotonic()
    found = {message["name"]: message["what"] for message in ward.take(20)}
    assert found == {f"quick{number}": "healthy" for number in range(20)}
    assert time.monotonic() - began < 40


def test_first_looks_are_spread(ward: Ward, serve: Serve) -> None:
    """Hundreds of checks do not begin at the same moment."""
    server = serve(drop)
    for number in range(300):
        ward.put(f"p{number}", check=[{"tcp": f"127.0.0.1:{server.port}", "period": 60, "action": "report"}])
        ward.say(f"p{number}")
    ward.check()
    wait_for(lambda: server.accepted > 0, "they begin")
    began = time.monotonic()
    assert len(ward.take(300)) >= 300
    assert time.monotonic() - began > 1.0


def test_a_kill_loses_no_descriptor(ward: Ward, serve: Serve) -> None:
    """Servers that hang up, refuse or are silent leave no descriptor behind."""
    servers = [serve(behaviour) for behaviour in (drop, silent, status(200))]
    checks = [{**QUICK, "http": f"http://127.0.0.1:{server.port}/"} for server in servers]
    ward.put("web", check=[*checks, {**QUICK, "tcp": str(free_port())}, {**QUICK, "exec": ["/bin/true"]}])
    ward.say("web")
    checker = ward.check()
    wait_for(lambda: servers[1].accepted > 3, "they are asked")
    few = len(os.listdir(f"/proc/{checker.pid}/fd"))
    wait_for(lambda: servers[1].accepted > 12, "they are asked again")
    assert len(os.listdir(f"/proc/{checker.pid}/fd")) <= few + 5
    killed(checker)
