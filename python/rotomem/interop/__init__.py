"""Mattes into hosts without a live host: scripts and snippets that load plate and mattes there.

Everything that comes from users is quoted for the language it goes into (`quoting.py`).
"""

from __future__ import annotations

KINDS = {
    "nk": "a Nuke script",
    "comp": "a Fusion composition",
    "setting": "tools to paste into Fusion",
    "blender": "a Python script for Blender",
    "otio": "an OpenTimelineIO timeline",
}
"""What `interop.export` writes."""
