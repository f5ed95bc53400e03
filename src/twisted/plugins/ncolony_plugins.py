"""Tells ``python -m twisted`` about this package's plugins. This directory is shared, so it has no ``__init__.py``."""

from twisted.application.service import ServiceMaker

supervisor = ServiceMaker(
    "ncolony",
    "ncolony.service",
    "A process supervisor with file-based control",
    "ncolony",
)

scheduler = ServiceMaker(
    "ncolony scheduler",
    "ncolony.apps.scheduler",
    "Runs a short-lived command periodically",
    "ncolony-scheduler",
)

syslog = ServiceMaker(
    "ncolony syslog",
    "ncolony.apps.syslog",
    "Forwards what the processes of a colony print to a syslog collector",
    "ncolony-syslog",
)

check = ServiceMaker(
    "ncolony check",
    "ncolony.apps.checks.service",
    "Probes whether processes are ready, and checks whether they still work",
    "ncolony-check",
)

beatcheck = ServiceMaker(
    "ncolony beatcheck",
    "ncolony.beatcheck",
    "Restarts processes whose heartbeat stops",
    "ncolony-beatcheck",
)

httpcheck = ServiceMaker(
    "ncolony httpcheck",
    "ncolony.httpcheck",
    "Restarts web servers that do not answer",
    "ncolony-httpcheck",
)

jobs = ServiceMaker(
    "ncolony jobs",
    "ncolony.apps.jobs",
    "Runs the jobs of a colony at their times",
    "ncolony-jobs",
)

health = ServiceMaker(
    "ncolony health",
    "ncolony.apps.health",
    "Answers HTTP requests that ask whether a colony lives and is ready",
    "ncolony-health",
)

notify = ServiceMaker(
    "ncolony notify",
    "ncolony.apps.notify",
    "Tells a command or a URL when processes of a colony are not well",
    "ncolony-notify",
)
