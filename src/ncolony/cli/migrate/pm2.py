"""ecosystem.config.json of pm2: its apps. An ecosystem.config.js is a program and is not run."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from ncolony.model.config import MOST_INSTANCES

from . import json5, words
from .report import MAPPED, NOT_MAPPED, NOTE, Draft, Key, Notes, Refused, Source

if TYPE_CHECKING:
    from collections.abc import Callable

CONVERT = "node -p 'JSON.stringify(require(\"./ecosystem.config.js\"))' > ecosystem.config.json"
_WATCH = "nothing is restarted because a file changes; `ncolony ctl restart NAME` from a watcher such as entr does that"
_CLUSTER = (
    "no shared listening socket: each copy listens by itself, for example on a port computed from NCOLONY_INDEX"
    " or with SO_REUSEPORT"
)
_NODE = "of pm2's own wrapper around Node.js, which is not there"
_READY = (
    "its process.send('ready') reaches pm2 alone: have it say READY=1 to NOTIFY_SOCKET and set `ready`, or have a port"
    " or URL asked"
)
_SHUT = Key(NOT_MAPPED, "processes get signals, not messages")

KEYS: dict[str, Key] = {
    "name": Key(MAPPED, "the name of the file"),
    "script": Key(MAPPED, "`args`, behind the interpreter; with spaces in it, `bash -c`"),
    "args": Key(MAPPED, "`args`"),
    "interpreter": Key(
        MAPPED, '`args`; without one it is chosen by the ending of the script, `"none"` runs the script itself'
    ),
    "interpreter_args": Key(MAPPED, "`args`, between interpreter and script"),
    "cwd": Key(MAPPED, "`cwd`; without one, the directory of the ecosystem file"),
    "instances": Key(MAPPED, '`instances`; `"max"` and 0 become the number of processors here'),
    "exec_mode": Key(MAPPED, "fork is the only mode; with cluster, the copies do not share a socket"),
    "env": Key(MAPPED, '`env`; the rest of the environment is inherited there, so `env_inherit` is `["*"]`'),
    "env_*": Key(NOTE, "of another environment, which `--env NAME` chooses: import with `--env NAME`"),
    "filter_env": Key(NOTE, "`env_inherit` is `[]` for true; names to leave out cannot be said, so name those to keep"),
    "port": Key(MAPPED, "`env.PORT`"),
    "instance_var": Key(NOT_MAPPED, "the number of a copy is in NCOLONY_INDEX"),
    "increment_var": Key(NOT_MAPPED, "compute it from NCOLONY_INDEX"),
    "watch": Key(NOT_MAPPED, _WATCH),
    "ignore_watch": Key(NOT_MAPPED, _WATCH),
    "watch_delay": Key(NOT_MAPPED, _WATCH),
    "watch_options": Key(NOT_MAPPED, _WATCH),
    "max_memory_restart": Key(MAPPED, "`memory_max`, which counts what the process started too"),
    "autorestart": Key(MAPPED, '`restart`: `"always"` or `"never"`'),
    "stop_exit_codes": Key(MAPPED, '`restart` `"on-failure"` with these `success_codes`'),
    "autostart": Key(MAPPED, "`enabled`"),
    "cron_restart": Key(
        NOT_MAPPED,
        "no restarts by the clock: a job that runs `ncolony ctl restart NAME`, with a `schedule`, does that",
    ),
    "min_uptime": Key(MAPPED, "`threshold`"),
    "max_restarts": Key(MAPPED, "`give_up`: so many failures within `min_uptime` times that"),
    "restart_delay": Key(MAPPED, "`min_restart_delay` and `max_restart_delay`; after a long life there is no wait"),
    "exp_backoff_restart_delay": Key(MAPPED, "`min_restart_delay`, doubling where pm2 multiplies by 1.5, up to 15 s"),
    "kill_timeout": Key(MAPPED, "the seconds in `stop`, after SIGINT; pm2's 1.6 s are written out"),
    "treekill": Key(MAPPED, '`stop_scope`: `"process"` for false'),
    "shutdown_with_message": _SHUT,
    "listen_timeout": Key(NOT_MAPPED, _READY),
    "wait_ready": Key(NOT_MAPPED, _READY),
    "out_file": Key(MAPPED, "`log.stdout`"),
    "error_file": Key(MAPPED, "`log.stderr`"),
    "log_file": Key(MAPPED, "`log.stdout` for both streams, where no other file is named"),
    "disable_logs": Key(NOTE, "`log.forward` is false; output is kept nevertheless, within `--log-budget`"),
    "merge_logs": Key(NOTE, "every copy has a log of its own"),
    "log_date_format": Key(NOTE, "`log.timestamps`, in our own format"),
    "time": Key(NOTE, "`log.timestamps`, in our own format"),
    "log_type": Key(MAPPED, "`log.format`"),
    "pid_file": Key(NOTE, "`--pid DIR` of the supervisor keeps a file for each process"),
    "uid": Key(MAPPED, "`uid`"),
    "gid": Key(MAPPED, "`gid`"),
    "namespace": Key(MAPPED, "`group`"),
    "source_map_support": Key(NOT_MAPPED, _NODE),
    "disable_source_map_support": Key(MAPPED, "nothing supports source maps here"),
    "vizion": Key(NOTE, _NODE),
    "pmx": Key(NOTE, _NODE),
    "automation": Key(NOTE, _NODE),
    "trace": Key(NOT_MAPPED, _NODE),
    "disable_trace": Key(NOTE, _NODE),
    "v8": Key(NOT_MAPPED, _NODE),
    "event_loop_inspector": Key(NOT_MAPPED, _NODE),
    "deep_monitoring": Key(NOT_MAPPED, _NODE),
    "io": Key(NOT_MAPPED, _NODE),
    "force": Key(NOTE, "names are unique here"),
    "append_env_to_name": Key(NOT_MAPPED, "give the process the `name` that is wanted"),
    "name_prefix": Key(NOT_MAPPED, "give the process the `name` that is wanted"),
    "post_update": Key(NOT_MAPPED, "no deployment"),
    "install_url": Key(NOT_MAPPED, "nothing is installed"),
    "execute_command": Key(NOTE, "fork is the only mode"),
    "username": Key(NOTE, "pm2 itself notes it"),
    "windowsHide": Key(NOTE, "of Windows"),
    "kill_retry_time": Key(NOTE, "how often pm2 looks whether the process is gone; here the kernel says so"),
    "write": Key(NOTE, "of pm2's command line"),
}
# Other spellings that pm2 takes.
ALIASES = {
    "exec": "script",
    "cmd": "script",
    "command": "script",
    "exec_interpreter": "interpreter",
    "node_args": "interpreter_args",
    "interpreterArgs": "interpreter_args",
    "out": "out_file",
    "output": "out_file",
    "out_log": "out_file",
    "error": "error_file",
    "err": "error_file",
    "err_file": "error_file",
    "err_log": "error_file",
    "log": "log_file",
    "pid": "pid_file",
    "cron": "cron_restart",
    "combine_logs": "merge_logs",
    "user": "uid",
}
# By the ending of the script, as pm2 chooses.
_INTERPRETERS = {
    ".sh": "bash",
    ".py": "python3",
    ".rb": "ruby",
    ".php": "php",
    ".pl": "perl",
    ".js": "node",
    ".cjs": "node",
    ".mjs": "node",
    ".ts": "bun",
    ".tsx": "bun",
}
# What a file begins with that is no data.
_PROGRAM = re.compile(r"(module\.exports|const|var|let|import|export|'use strict'|\"use strict\")")
_KILL_MS, _MIN_UPTIME_MS, _MAX_RESTARTS, _LONGEST_BACKOFF_S = 1600, 1000, 16, 15


def read(path: str, text: str, source: Source, environment: str = "") -> None:
    """Fill `source` with the apps. `environment`: the env_NAME whose variables count too.

    :raises Refused: when the file as a whole makes no sense.
    """
    if _PROGRAM.match(text, json5.begin(text)):
        raise Refused(f"a program, which is not run here; convert it with: {CONVERT}")
    root = json5.parse(text)
    apps = root.value
    if isinstance(apps, dict) and "apps" in apps:
        for key, node in apps.items():
            if key == "deploy":
                source.add(NOT_MAPPED, "no deployment", node.line, key)
            elif key != "apps":
                source.add(NOT_MAPPED, "pm2 knows no such key", node.line, key)
        apps = apps["apps"].value
    if isinstance(apps, dict):
        apps = [json5.Node(apps, root.line)]
    if not isinstance(apps, list):
        raise Refused("expected a list of apps", root.line, "apps")
    for node in apps:
        if not isinstance(node.value, dict):
            source.refuse(Refused("expected an app, an object with keys", node.line, "apps"))
            continue
        _app(node, os.path.dirname(os.path.abspath(path)), environment, source)


class _App:
    """One app in the making: its values by pm2's main spelling of each key."""

    def __init__(self, node: json5.Node, notes: Notes) -> None:
        self.notes, self.line = notes, node.line
        self.nodes: dict[str, tuple[str, json5.Node]] = {}
        for key, value in node.value.items():
            if value.value is not None:
                self.nodes.setdefault(ALIASES.get(key, key), (key, value))
        self.config: dict[str, Any] = {}
        self.told: set[str] = set()

    def get(self, key: str, convert: Callable[[Any], Any]) -> Any:
        """The converted value of a key, None where it is absent; what is wrong names the key."""
        if key not in self.nodes:
            return None
        said, node = self.nodes[key]
        try:
            return convert(node.plain())
        except Refused as refused:
            raise Refused(refused.why, node.line, said, _shown(node), refused.result) from None

    def tell(self, fate: str, key: str, why: str) -> None:
        """Say the fate of a key that is not what the table says."""
        said, node = self.nodes.get(key, (key, json5.Node(None, self.line)))
        self.told.add(key)
        self.notes.by_rule(Key(fate, why), node.line, said, _shown(node))

    def log(self, key: str, value: Any) -> None:
        """Set a key of `log`."""
        self.config.setdefault("log", {})[key] = value


def _shown(node: json5.Node) -> str:
    value = node.plain()
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _app(node: json5.Node, here: str, environment: str, source: Source) -> None:
    app = _App(node, Notes(source))
    name = ""
    try:
        name = app.get("name", _text) or os.path.splitext(os.path.basename(app.get("script", _text) or ""))[0]
        app.notes.process = name
        _command(app, here)
        _environment(app, environment)
        _restarting(app)
        _stopping(app)
        _output(app)
        _rest(app)
    except Refused as refused:
        source.refuse(refused, name)
        return
    for key, (said, value) in app.nodes.items():
        rule = KEYS.get(key, KEYS["env_*"] if key.startswith("env_") else Key(NOT_MAPPED, "pm2 knows no such key"))
        if key not in app.told:
            app.notes.by_rule(rule, value.line, said, _shown(value))
    source.drafts.append(Draft(name, app.config, node.line))


def _command(app: _App, here: str) -> None:
    script = app.get("script", _text)
    if not script:
        raise Refused("an app needs a script", app.line, "script")
    cwd = os.path.normpath(os.path.join(here, os.path.expanduser(app.get("cwd", _text) or here)))
    given = app.get("args", _words) or []
    if " " in script and "args" not in app.nodes and not os.path.exists(os.path.join(cwd, script)):
        app.config.update(args=["bash", "-c", script], cwd=cwd)
        app.tell(NOTE, "script", "run by bash, as pm2 does for a script with spaces in it")
        return
    interpreter = app.get("interpreter", _text)
    ending = os.path.splitext(script)[1]
    if interpreter is None:
        interpreter = _INTERPRETERS.get(ending, "none")
        if ending not in _INTERPRETERS:
            app.tell(
                NOTE, "script", "run as it is; pm2 gives a script without a known ending to node unless it is binary"
            )
    elif interpreter.startswith("node@"):
        app.tell(NOTE, "interpreter", "nvm is not asked: node is the one on PATH")
        interpreter = "node"
    program = os.path.join(cwd, script)
    if interpreter == "none" and "/" not in script and not os.path.exists(program):
        program = script
    options = app.get("interpreter_args", _words) or []
    words_ = [program] if interpreter == "none" else [interpreter, *options, os.path.normpath(program)]
    app.config.update(args=[*words_, *given], cwd=cwd)


def _environment(app: _App, environment: str) -> None:
    env = app.get("env", _env) or {}
    chosen = f"env_{environment}"
    if environment and chosen in app.nodes:
        env.update(app.get(chosen, _env))
        app.tell(MAPPED, chosen, "")
    if (port := app.get("port", _whole)) is not None:
        env["PORT"] = str(port)
    if "python" in app.config["args"][0]:
        env.setdefault("PYTHONUNBUFFERED", "1")
    filtered = "filter_env" in app.nodes and app.nodes["filter_env"][1].value is True
    app.config["env_inherit"] = [] if filtered else ["*"]
    app.config["env"] = env


def _restarting(app: _App) -> None:
    restarts = app.get("autorestart", _truth)
    codes = app.get("stop_exit_codes", _codes)
    app.config["restart"] = "never" if restarts is False else "on-failure" if codes else "always"
    if codes and restarts is not False:
        app.config["success_codes"] = codes
        app.tell(MAPPED, "stop_exit_codes", "")
    uptime = app.get("min_uptime", _milliseconds)
    if uptime is not None:
        app.config["threshold"] = uptime
    uptime = _MIN_UPTIME_MS / 1000 if uptime is None else uptime
    most = app.get("max_restarts", _whole)
    most = _MAX_RESTARTS if most is None else most
    delay = app.get("restart_delay", _milliseconds)
    backoff = app.get("exp_backoff_restart_delay", _milliseconds)
    if restarts is False:
        for key in ("max_restarts", "restart_delay", "exp_backoff_restart_delay", "stop_exit_codes"):
            if key in app.nodes:
                app.tell(NOTE, key, "it is never restarted, so this has no effect")
        return
    if backoff:
        app.config.update(min_restart_delay=min(backoff, _LONGEST_BACKOFF_S), max_restart_delay=_LONGEST_BACKOFF_S)
    elif delay:
        app.config.update(min_restart_delay=delay, max_restart_delay=delay)
    elif uptime and 1 <= most <= 1000:
        app.config.update(min_restart_delay=0, max_restart_delay=0)
        app.config["give_up"] = {"failures": most, "within": words.tidy(uptime * most)}
        return
    # pm2 counts only what dies within min_uptime * max_restarts of its first start: with waits, hardly anything.
    if "max_restarts" in app.nodes:
        app.tell(NOTE, "max_restarts", "with a wait between restarts pm2 hardly ever gives up, and neither does this")


def _stopping(app: _App) -> None:
    wait = app.get("kill_timeout", _milliseconds)
    app.config["stop"] = [["INT", _KILL_MS / 1000 if wait is None else wait]]
    if app.get("treekill", _truth) is False:
        app.config["stop_scope"] = "process"


def _output(app: _App) -> None:
    cwd = app.config["cwd"]

    def place(value: Any) -> str:
        if not isinstance(value, str) or not value or value.endswith("/"):
            raise Refused("expected the path of a file")
        found = os.path.normpath(os.path.join(cwd, os.path.expanduser(value)))
        return "" if value == "NULL" or found == "/dev/null" else found

    both = app.get("log_file", lambda value: "" if isinstance(value, bool) else place(value))
    out, err = app.get("out_file", place), app.get("error_file", place)
    for key, found in (("out_file", out), ("error_file", err), ("log_file", both)):
        if found == "" and key in app.nodes:
            app.tell(NOTE, key, "output is kept nevertheless, within `--log-budget`")
    if out or both:
        app.log("stdout", out or both)
        if out and both:
            app.tell(
                NOT_MAPPED, "log_file", "one file for standard output and one for standard error, no third for both"
            )
    if err:
        app.log("stderr", err)
    elif out and not err:
        app.log("stderr", True)
    if app.get("disable_logs", _truth):
        app.log("forward", False)
    has_file = bool(out or both or err)
    for key in ("log_date_format", "time"):
        if key not in app.nodes or (key == "time" and not app.get("time", _truth)):
            continue
        if has_file:
            app.log("timestamps", True)
        else:
            app.tell(NOTE, key, "the supervisor's log has a time on each line")
    kind = app.get("log_type", _text)
    if kind == "json" and has_file:
        app.log("format", "json")
    elif kind is not None:
        app.tell(NOTE, "log_type", "`--log-format json` of the supervisor, or `log.format` with a file")


def _rest(app: _App) -> None:
    for key in ("uid", "gid"):
        if (who := app.get(key, _owner)) is not None:
            app.config[key] = who
    if (group := app.get("namespace", _text)) and group != "default":
        app.config["group"] = [group]
    if app.get("autostart", _truth) is False:
        app.config["enabled"] = False
    if limit := app.get("max_memory_restart", _size):
        app.config["memory_max"] = limit
    count = app.get("instances", _instances)
    if count is not None:
        if count > 1:
            app.config["instances"] = count
        if app.nodes["instances"][1].value in ("max", 0, "0", -1):
            app.tell(NOTE, "instances", f"{count}, which suits this machine: change it for another one")
    mode = app.get("exec_mode", _text) or ""
    if mode.startswith("cluster"):
        app.tell(NOT_MAPPED, "exec_mode", _CLUSTER)
    for key in ("watch", "shutdown_with_message", "wait_ready", "source_map_support", "trace", "v8"):
        if key in app.nodes and app.nodes[key][1].value is False:
            app.tell(MAPPED, key, "")
    if "cron_restart" in app.nodes and app.nodes["cron_restart"][1].value in (0, "0", ""):
        app.tell(MAPPED, "cron_restart", "")
    for key in ("ignore_watch", "watch_delay", "watch_options"):
        if key in app.nodes and ("watch" not in app.nodes or app.nodes["watch"][1].value is False):
            app.tell(MAPPED, key, "")


# --- values ---


def _text(value: Any) -> str:
    if isinstance(value, str) and "\0" not in value:
        return value
    raise Refused("expected text")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return words.truth(value)
    raise Refused("expected true or false")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused("expected a number")
    return words.whole(str(value))


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        if all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in value):
            return [str(one) for one in value]
        raise Refused("expected a list of texts")
    try:
        return shlex.split(_text(value))
    except ValueError as error:
        raise Refused(f"cannot be split into words: {str(error).lower()}") from None


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Refused("expected an object of variables")
    return {key: one if isinstance(one, str) else json.dumps(one) for key, one in value.items()}


def _codes(value: Any) -> list[int]:
    return [words.whole(str(one), 0, 255) for one in (value if isinstance(value, list) else [value])]


def _milliseconds(value: Any) -> float:
    """pm2's times: milliseconds, or text with h, m or s."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused("expected milliseconds, or a time such as 10s")
    text = str(value)
    return words.span(text if text[-1:] in ("h", "m", "s") and not text.endswith("ms") else f"{text}ms")


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused("expected a size such as 300M")
    return words.size(str(value))


def _owner(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Refused("expected a user or group, by number or name")
    return value if isinstance(value, int) else words.owner(value)


def _instances(value: Any) -> int:
    here = os.cpu_count() or 1
    if value == "max":
        return here
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Refused('expected a number or "max"')
    found = words.whole(str(value), -MOST_INSTANCES, MOST_INSTANCES)
    return found if found > 0 else max(1, here + found)
