"""Layer names that every compositor accepts, from whatever the artist typed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TypeVar

K = TypeVar("K")

LONGEST_LAYER = 29
"""Characters of a layer name; with `.A` this is 31, the longest channel name that OpenEXR 1 readers accept."""

# Channel letters and words that some reader takes for a colour plane, and DWA for a lossy one; layers that Nuke
# makes itself; view names (`left.A` in a multi-view file is the left eye's alpha); device names of Windows, since
# a layer name also becomes a file name.
_RESERVED_WORDS = """
    r g b a y x z u v n by ry ar ag ab red green blue alpha luma luminance id
    rgb rgba depth motion forward backward mask deep other rotopaint_mask disparity disparityl disparityr
    left right main default
    con prn aux nul com1 com2 com3 com4 lpt1 lpt2 lpt3
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())


def legal_layer_name(name: str) -> str:
    """Spell `name` so that Nuke, Fusion, Blender and old OpenEXR readers show it as one layer.

    Letters lose their accents, runs of anything else but `[A-Za-z0-9_]` become one `_`, a leading digit gets a
    `_` before it, and words that mean a channel or a view (`r`, `y`, `alpha`, `left`, ...) get `_matte` after
    them. A name with nothing legal in it becomes `object`. The result has 1..29 characters.

    >>> legal_layer_name("car door"), legal_layer_name("2nd actor"), legal_layer_name("Rémi"), legal_layer_name("R")
    ('car_door', '_2nd_actor', 'Remi', 'R_matte')
    """
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", plain)
    if plain != name:
        plain = plain.strip("_") or "object"
    plain = plain[:LONGEST_LAYER]
    if plain[:1].isdigit():
        plain = ("_" + plain)[:LONGEST_LAYER]
    if plain.lower() in _RESERVED:
        plain = f"{plain}_matte"
    return plain or "object"


def legal_layer_names(names: Mapping[K, str], *, taken: Iterable[str] = ()) -> dict[K, str]:
    """A legal layer name for each of `names`, no two alike even where case is ignored.

    names    key -> what the artist typed; two entries may spell alike once made legal
    taken    names that are spoken for already (views or layers of the plate)
    returns  key -> layer name, in the order of `names`; the later of two equal names gets `_2`, `_3`, ...

    A name that is legal as it stands keeps it, whatever the others become. File systems and some hosts
    ignore case, hence so does this.
    """
    used = {t.lower() for t in taken}
    result: dict[K, str] = {}
    wanted = {key: legal_layer_name(name) for key, name in names.items()}
    # Legal names choose first, so that "hero 1" can never push "hero_1" off its own name.
    for exact in (True, False):
        for key, name in names.items():
            base = wanted[key]
            if (base == name) is not exact or key in result:
                continue
            layer, n = base, 2
            while layer.lower() in used:
                tail = f"_{n}"
                layer, n = base[: LONGEST_LAYER - len(tail)] + tail, n + 1
            used.add(layer.lower())
            result[key] = layer
    return {key: result[key] for key in names}
