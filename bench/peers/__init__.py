"""The supervisors: one adapter class each, all with the interface of :class:`bench.peers.base.Peer`."""

from __future__ import annotations

from .base import Peer
from .circus import Circus
from .colony import NColony, Ours
from .limit import Limit
from .pm2 import Pm2
from .scan import S6, Daemontools, Runit, RunitLog, S6Log
from .supervisord import Supervisor

# In the order of the tables.
_CLASSES: list[type[Peer]] = [
    Limit, Ours, NColony, Supervisor, Circus, S6, S6Log, Runit, RunitLog, Daemontools, Pm2,
]  # fmt: skip
PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in _CLASSES}
# Those that are no rivals.
NO_RIVALS = ("limit", "ours")
