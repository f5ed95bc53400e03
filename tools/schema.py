"""Write src/ncolony/schema/*.json anew from the model and the configuration reference.

usage: python tools/schema.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ncolony.model import schema

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "src" / "ncolony" / "schema"


def generated() -> dict[str, str]:
    """What each shipped file has to hold."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    return {"config.json": _text(schema.config_schema(page)), "message.json": _text(schema.message_schema())}


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SHIPPED.mkdir(exist_ok=True)
    for name, text in generated().items():
        (SHIPPED / name).write_text(text, encoding="utf-8")
