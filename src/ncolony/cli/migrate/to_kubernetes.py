"""Config files as Kubernetes manifests: a Deployment, Job or CronJob each, and kustomization.yaml, which lists them.

The emitter knows mappings, lists and plain values. Every text is written in double quotes, so none is ever taken for
a number, a truth or a date.
"""

from __future__ import annotations

import json
import math
import re
import signal
from typing import Any

from . import probes
from .leaving import Output, Process, each, label
from .report import Refused

PLACEHOLDER = "SET-THE-IMAGE"
_HANDLED = frozenset(
    "args env env_inherit uid gid cwd group enabled restart success_codes threshold kill_time stop instances"
    " memory_max env_file env_secret give_up ready check schedule".split()
)
_NODE = "a setting of the node or of the image"
_WHY = {
    "umask": _NODE,
    "nice": _NODE,
    "oom_score_adj": "the kubelet sets it by the class of the pod",
    "limits": _NODE,
    "stop_scope": "the container's first process gets the signal; the end of it is the end of all",
    "min_restart_delay": "the kubelet waits 10 s, doubling",
    "max_restart_delay": "the kubelet waits 5 minutes at most",
    "jitter": "the kubelet has its own",
    "on_exit": "no counterpart",
    "on_give_up": "no counterpart",
    "log": "the container's output is the log",
    "after": "no order between pods: an init container that waits, or the program itself, does that",
    "watchdog": "the kubelet is told nothing, it asks: see livenessProbe",
    "sockets": "nothing is passed: a Service, and a port that the program opens",
    "rollback_if_not_ready": "kubectl rollout undo; progressDeadlineSeconds only reports",
}
# How late the run of a CronJob may begin; below ten seconds the controller might miss it.
_DEADLINE_S = 60
# A Job that is tried again and again: the most that the field holds.
_FOR_EVER = 2**31 - 1
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*", re.ASCII)
# What YAML 1.1 takes for a truth or for nothing.
_WORDS = frozenset("y n yes no true false on off null".split())
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def export(processes: list[Process], problems: list[str], images: dict[str, str]) -> list[Output]:
    """The manifests of these processes. `images`: by process name, "" for all others."""
    taken: set[str] = {"kustomization"}
    made = each(processes, lambda process: _manifest(process, images, label(process.name, taken)), problems)
    outputs = [output for _, found in made for output in found]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [output.name for output in outputs],
    }
    head = ["# The processes of a colony. Apply them with: kubectl apply -k ."]
    return [*outputs, Output("kustomization.yaml", _document(head, kustomization))]


def _manifest(process: Process, images: dict[str, str], name: str) -> list[Output]:
    config = process.config
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "ncolony-export"}
    for group in config.groups:
        if _LABEL.fullmatch(group):
            labels[f"group.ncolony/{group}"] = "true"
        else:
            process.leave("group", f"{group}: not the name of a label")
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": math.ceil(process.stop_time),
        "containers": [_container(process, images, name)],
    }
    if process.stop_signal != signal.SIGTERM or len(config.stop or ()) > 1:
        process.leave("stop", "one signal only, SIGTERM unless the image says otherwise with STOPSIGNAL")
    template = {"metadata": {"labels": labels}, "spec": spec}
    if config.schedule is not None:
        kind, body = "CronJob", _cron_job(process, template)
    elif config.restart == "always":
        kind, body = "Deployment", _deployment(process, name, template)
    else:
        kind, body = "Job", _job(process, template)
    process.leave_others(_HANDLED, _WHY)
    manifest = {
        "apiVersion": "apps/v1" if kind == "Deployment" else "batch/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels},
        "spec": body,
    }
    return [Output(f"{name}.yaml", _document(process.comments(), manifest))]


def _deployment(process: Process, name: str, template: dict[str, Any]) -> dict[str, Any]:
    config = process.config
    if config.give_up is not None:
        process.leave("give_up", "a Deployment never gives up")
    if config.instances is not None:
        process.leave("instances", "the copies do not know their number; a StatefulSet's do, from their name")
    count = 1 if config.instances is None else config.instances
    body: dict[str, Any] = {"replicas": count if config.enabled else 0}
    if config.threshold:
        body["minReadySeconds"] = math.ceil(config.threshold)
    template["spec"]["restartPolicy"] = "Always"
    return {**body, "selector": {"matchLabels": {"app.kubernetes.io/name": name}}, "template": template}


def _job(process: Process, template: dict[str, Any]) -> dict[str, Any]:
    config = process.config
    if config.restart == "never":
        policy, limit = "Never", 0
    else:
        policy = "OnFailure"
        limit = _FOR_EVER if config.give_up is None else config.give_up.failures - 1
        if config.give_up is not None:
            process.leave("give_up", "counted from the beginning of the Job, not within a time")
        if config.success_codes != (0,):
            process.leave("success_codes", "0 alone is a success")
    if config.threshold is not None:
        process.leave("threshold", "a Job has no such time")
    template["spec"]["restartPolicy"] = policy
    body: dict[str, Any] = {"backoffLimit": limit}
    if config.instances is not None:
        body.update(parallelism=config.instances, completions=config.instances, completionMode="Indexed")
        process.leave("instances", "the number of a copy is in JOB_COMPLETION_INDEX")
    if not config.enabled:
        body["suspend"] = True
    return {**body, "template": template}


def _cron_job(process: Process, template: dict[str, Any]) -> dict[str, Any]:
    config, schedule = process.config, process.config.schedule
    assert schedule is not None
    cron = probes.five_fields(process)
    body: dict[str, Any] = {"schedule": cron}
    if schedule.timezone is not None:
        body["timeZone"] = schedule.timezone
    elif schedule.cron is not None:
        process.leave("schedule.timezone", "the time zone of the controller counts, which is mostly UTC: set timeZone")
    body["concurrencyPolicy"] = "Replace" if schedule.overlap == "replace" else "Forbid"
    if schedule.overlap == "queue":
        process.leave("schedule.overlap", "a run that is due while the last one goes on comes late or never")
    if not schedule.catch_up:
        # Without a deadline, the controller makes up for what it missed.
        body["startingDeadlineSeconds"] = _DEADLINE_S
    if not config.enabled:
        body["suspend"] = True
    job: dict[str, Any] = {"backoffLimit": schedule.retries}
    if schedule.timeout is not None:
        job["activeDeadlineSeconds"] = math.ceil(schedule.timeout)
        if schedule.retries:
            process.leave("schedule.timeout", "activeDeadlineSeconds is that of all tries together")
    if config.success_codes != (0,):
        process.leave("success_codes", "0 alone is a success")
    for key in ("give_up", "threshold"):
        if key in process.content:
            process.leave(key, "not heeded of a job")
    for key in ("jitter", "retry_delay", "late_after"):
        if key in process.content.get("schedule", {}):
            process.leave(f"schedule.{key}", "the controller has its own ways")
    template["spec"]["restartPolicy"] = "Never"
    return {**body, "jobTemplate": {"spec": {**job, "template": template}}}


def _literal(text: str) -> str:
    """Text in which $(NAME) is no variable."""
    return text.replace("$", "$$")


def _container(process: Process, images: dict[str, str], name: str) -> dict[str, Any]:
    config = process.config
    image = images.get(process.name, images.get("", ""))
    if not image:
        process.leave("image", f"{PLACEHOLDER} is none: put the image in its place, or export with --image")
    found: dict[str, Any] = {
        "name": name,
        "image": image or PLACEHOLDER,
        "command": [_literal(one) for one in config.args],
    }
    if config.cwd is not None:
        found["workingDir"] = config.cwd
    env: list[dict[str, Any]] = []
    for key, value in config.env.items():
        if _VARIABLE.fullmatch(key):
            env.append({"name": key, "value": _literal(value)})
        else:
            process.leave(f"env.{key}", "not the name of a variable there")
    for key, path in config.env_secret.items():
        if not _VARIABLE.fullmatch(key):
            raise Refused(f"{key}: not the name of a variable there", key="env_secret")
        env.append({"name": key, "valueFrom": {"secretKeyRef": {"name": f"{name}-secrets", "key": key}}})
        process.leave(f"env_secret.{key}", f"kubectl create secret generic {name}-secrets --from-file={key}={path}")
    if env:
        found["env"] = env
    sources = []
    for number, path in enumerate(config.env_files):
        secret = f"{name}-env" if number == 0 else f"{name}-env-{number}"
        sources.append({"secretRef": {"name": secret}})
        process.leave("env_file", f"kubectl create secret generic {secret} --from-env-file={path}")
    if sources:
        found["envFrom"] = sources
    if config.env_inherit:
        process.leave("env_inherit", "a container has the environment of its image")
    if config.most_memory is not None:
        found["resources"] = {"limits": {"memory": str(config.most_memory)}}
    if context := _context(process):
        found["securityContext"] = context
    found.update(probes.of_kubelet(process))
    return found


def _context(process: Process) -> dict[str, int]:
    found = {}
    for key, word in (("uid", "runAsUser"), ("gid", "runAsGroup")):
        value = getattr(process.config, key)
        if isinstance(value, int):
            found[word] = value
        elif value is not None:
            process.leave(key, "a number is needed: names are known in the image only")
    return found


# --- YAML ---


def _document(head: list[str], value: dict[str, Any]) -> str:
    return "\n".join([*head, *_lines(value, "")]) + "\n"


def scalar(value: Any) -> str:
    """A plain value in YAML; a text in double quotes, whatever it holds."""
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
    return json.dumps(value)


def _lines(value: Any, indent: str) -> list[str]:
    """A mapping or list in block style."""
    lines: list[str] = []
    entries = value.items() if isinstance(value, dict) else ((None, one) for one in value)
    for key, one in entries:
        start = f"{indent}- " if key is None else f"{indent}{_key(key)}:"
        if not isinstance(one, dict | list):
            lines.append(f"{start}{'' if key is None else ' '}{scalar(one)}")
        elif not one:
            lines.append(f"{start}{'' if key is None else ' '}{'{}' if isinstance(one, dict) else '[]'}")
        elif key is None:
            first, *rest = _lines(one, indent + "  ")
            lines += [start + first.lstrip(" "), *rest]
        else:
            lines += [start, *_lines(one, indent + "  ")]
    return lines


def _key(key: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", key, re.ASCII) and key.lower() not in _WORDS
    return key if plain else scalar(key)
