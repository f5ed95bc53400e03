"""A database, its migration, a worker, a cache and a web server: started in the order asked for, stopped in reverse."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from colony import Colony
from services.peers import Ends, Nginx, Postgres, Redis, needs, path_of, stamped, ups

HERE = Path(__file__).resolve().parent
# Who ends last of two is told by different clocks: the kernel's word through a thread of ours, and a log.
_BLUR_S = 0.3


@needs("postgres", "psql", "redis-server", "redis-cli", "nginx", "curl")
def test_five_services_start_and_stop_in_order(open_colony: Colony) -> None:
    """Whatever the order of the files, each starts when those it waits for are so far, and stops before they do."""
    colony = open_colony
    postgres, redis, nginx = Postgres(colony, "postgres"), Redis(colony, "redis"), Nginx(colony, "nginx")
    create = "CREATE TABLE steps (at timestamptz); INSERT INTO steps VALUES (clock_timestamp())"
    migrate = 'echo "up $$ $(date +%s.%N)" >>"$0"; "$@" || exit; echo "done $$ $(date +%s.%N)" >>"$0"'
    worker = [sys.executable, "-I", "-S", str(HERE / "worker.py"), str(colony.notes_directory / "worker")]
    files = {
        "postgres": postgres.config(
            ready={"exec": postgres.answers(), "timeout": 60},
            stop=[["INT", 20]],
            stop_scope="process",
        ),
        "migrate": {
            "args": ["/bin/sh", "-c", migrate, str(colony.notes_directory / "migrate"), *postgres.client(create)],
            "restart": "never",
            "after": {"postgres": "ready"},
        },
        "worker": {
            "args": stamped(colony, "worker", *worker, str(nginx.port), *postgres.client("SELECT count(*) FROM steps")),
            "after": {"migrate": "completed"},
        },
        "redis": redis.config(ready={"exec": redis.answers(), "timeout": 60}),
        "nginx": nginx.config(
            ready={"http": nginx.url, "timeout": 60},
            check=[{"http": nginx.url, "period": 1}],
            after={"redis": "ready", "worker": "ready"},
            stop=[["QUIT", 20]],
            stop_scope="process",
        ),
    }
    order = random.sample(sorted(files), len(files))
    for name in order:
        colony.put(name, files[name])
    # Ready without a `ready` key is who has run for its threshold.
    colony.start("-t", "0.3")
    colony.wait_for_status("nginx", 60, state="RUNNING", healthy=True)
    assert nginx.get() == "ok"

    at = {name: ups(colony, name) for name in files}
    assert {name: len(times) for name, times in at.items()} == dict.fromkeys(files, 1), order
    [done] = [float(line.split()[2]) for line in colony.notes("migrate", "done ")]
    assert postgres.when("ready to accept connections") <= at["migrate"][0], order
    assert done <= at["worker"][0], order
    assert colony.notes("worker", "found ") == ["found 1"]
    assert redis.when("Ready to accept connections") <= at["nginx"][0], order
    assert at["worker"][0] + 0.3 <= at["nginx"][0] + _BLUR_S, order

    # A download that nginx finishes before it ends: whoever waits for its end has to wait long.
    download = subprocess.Popen([path_of("curl"), "-sS", nginx.url + "slow"], stdout=subprocess.PIPE)
    assert download.stdout
    data = download.stdout.read1(1)
    pids = {name: (colony.status(name) or {})["pid"] for name in ("postgres", "redis", "nginx", "worker")}
    ends = Ends(pids)
    asked = time.time()
    assert colony.stop(timeout=60) == 0
    at_end = ends.wait()
    data += download.communicate(timeout=30)[0]
    assert (download.returncode, len(data)) == (0, 32768)
    assert at_end["nginx"] > asked + 2 * _BLUR_S, "the download was no hindrance"
    [(told, seen)] = [line.split()[1:] for line in colony.notes("worker", "told ")]
    [down] = [float(line.split()[1]) for line in colony.notes("worker", "down ")]
    assert seen == "refused", "nginx still listened when the worker was told to stop"
    assert at_end["nginx"] <= float(told) + _BLUR_S
    assert at_end["nginx"] <= redis.when("User requested shutdown") + _BLUR_S
    # PostgreSQL cuts its times to the millisecond.
    assert down <= postgres.when("received fast shutdown request") + 0.001
    assert postgres.when("database system is shut down") <= at_end["postgres"]


# Notes its own end, which takes a second.
_SLOW = 'trap \'sleep 1; echo down >>"$1"; exit\' TERM; echo up >>"$1"; while :; do sleep 0.05; done'
_QUICK = 'trap \'cat "$2" >>"$1"; exit\' TERM; echo up >>"$1"; while :; do sleep 0.05; done'


def test_who_has_ended_still_stands_between_two_others(colony: Colony) -> None:
    """A worker that waits for a migration to complete stops before the database that the migration waited for."""
    shell = ("/bin/sh", "-c")
    worker, database = (str(colony.notes_directory / name) for name in ("worker", "database"))
    colony.put("database", {"args": [*shell, _QUICK, "sh", database, worker]})
    colony.put("migrate", {"args": ["/bin/true"], "restart": "never", "after": {"database": "started"}})
    colony.put("worker", {"args": [*shell, _SLOW, "sh", worker], "after": {"migrate": "completed"}})
    colony.start()
    colony.wait_for_notes("worker", beginning="up")
    colony.wait_for_notes("database", beginning="up")
    assert colony.stop() == 0
    # What the database found noted by the worker when it was told to stop.
    assert colony.notes("database") == ["up", "up", "down"]


def test_bound_processes_outlive_the_supervisor(colony: Colony) -> None:
    """A new supervisor, or a new version of it, restarts nobody who is bound to what runs, is ready and works."""
    fine = {"exec": ["/bin/true"]}
    server = colony.payload("server", "serve")
    colony.put("server", {"args": server, "ready": {**fine, "timeout": 60}, "check": [{**fine, "period": 1}]})
    names = ("started", "ready", "healthy")
    for name in names:
        bound = {"server": {"when": name, "bind": True}}
        colony.put(name, {"args": colony.payload(name, "serve"), "after": bound})
    colony.start()
    for name in names:
        colony.wait_until_running(name)
    for again in (lambda: colony.send({"type": "UPGRADE"}), colony.kill):
        again()
        if colony.has_exited():
            colony.start()
        colony.wait_for_status("server", state="RUNNING", healthy=True, instance=1)
        for name in names:
            colony.wait_until_running(name)
    assert {name: len(colony.notes(name)) for name in names} == dict.fromkeys(names, 1)
