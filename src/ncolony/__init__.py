"""NColony: process supervision through files."""

__version__ = "2026.11.0"
