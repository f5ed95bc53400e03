"""The loop, in which decisions meet deeds, and what belongs to it."""

from .known import Settings
from .loop import Supervisor

__all__ = ["Settings", "Supervisor"]
