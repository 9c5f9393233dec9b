"""Fusion compositions and settings that load a plate and its mattes, for Fusion Studio and Resolve's Fusion page."""

from __future__ import annotations

from collections.abc import Sequence

from rotomem.interop.footage import Footage, Matte
from rotomem.interop.quoting import lua

# What Fusion's own files name a channel that is not to be found.
_NO_CHANNEL = "SomethingThatWontMatchHopefully"
_COLUMN, _ROW = 110.0, 49.5


def fusion_comp(plate: Footage, mattes: Sequence[Footage]) -> str:
    """A composition (`.comp`): `TimelineItem:ImportFusionComp`, File > Open, or pasted."""
    head = [
        "Composition {",
        f"\tCurrentTime = {plate.first},",
        f"\tRenderRange = {{ {plate.first}, {plate.last} }},",
        f"\tGlobalRange = {{ {plate.first}, {plate.last} }},",
    ]
    return "\n".join([*head, *_tools(plate, mattes), "}"]) + "\n"


def fusion_setting(plate: Footage, mattes: Sequence[Footage]) -> str:
    """The same tools as a setting (`.setting`), to be pasted or dropped into a composition."""
    return "\n".join(["{", *_tools(plate, mattes), "}"]) + "\n"


def _tools(plate: Footage, mattes: Sequence[Footage]) -> list[str]:
    """A Loader for the plate; for every object a Loader, its channel as alpha, and a MatteControl that puts it on."""
    lines = ["\tTools = ordered() {", *_loader("RotomemPlate", plate, None, 0, 0)]
    objects = [(footage, matte) for footage in mattes for matte in footage.mattes]
    for i, (footage, matte) in enumerate(objects, 1):
        lines += _loader(f"RotomemMatte{i}", footage, matte, i, 1)
        lines += _matte_control(f"RotomemAlpha{i}", f"RotomemMatte{i}", i)
    return [*lines, "\t}"]


def _loader(name: str, footage: Footage, matte: Matte | None, column: int, row: int) -> list[str]:
    last = footage.frames - 1
    clip = {
        "ID": lua("Clip1"),
        "Filename": lua(footage.file(footage.first)),
        "StartFrame": str(footage.first),
        "LengthSetManually": "true",
        "Length": str(footage.frames),
        "TrimIn": "0",
        "TrimOut": str(last),
        "ExtendFirst": "0",
        "ExtendLast": "0",
        "Loop": "0",
        "AspectMode": "0",
        "Depth": "0",
        "TimeCode": "0",
        "GlobalStart": str(footage.first),
        "GlobalEnd": str(footage.last),
    }
    inputs = []
    if not footage.movie and footage.path.lower().endswith(".exr"):
        clip["FormatID"] = lua("OpenEXRFormat")
        if matte is not None:
            named = {"Red": _NO_CHANNEL, "Green": _NO_CHANNEL, "Blue": _NO_CHANNEL, "Alpha": matte.channel}
            inputs = [
                f'["Clip1.OpenEXRFormat.{c}Name"] = Input {{ Value = FuID {{ {lua(n)} }}, }}'
                for c, n in named.items()
            ]
    comment = [] if matte is None else [f"Comments = Input {{ Value = {lua(matte.name)}, }}"]
    return [
        f"\t\t{name} = Loader {{",
        "\t\t\tClips = { Clip { " + ", ".join(f"{k} = {v}" for k, v in clip.items()) + ", }, },",
        "\t\t\tNameSet = true,",
        "\t\t\tInputs = {",
        *(f"\t\t\t\t{text}," for text in [*inputs, *comment]),
        "\t\t\t},",
        f"\t\t\tViewInfo = OperatorInfo {{ Pos = {{ {_COLUMN * column}, {_ROW * row} }}, }},",
        "\t\t},",
    ]


def _matte_control(name: str, matte: str, column: int) -> list[str]:
    inputs = [
        'Background = Input { SourceOp = "RotomemPlate", Source = "Output", }',
        f'Foreground = Input {{ SourceOp = "{matte}", Source = "Output", }}',
        "MatteCombine = Input { Value = 4, }",  # the alpha of the foreground ...
        "CombineOp = Input { Value = 0, }",  # ... is copied
        "PostMultiply = Input { Value = 1, }",
    ]
    return [
        f"\t\t{name} = MatteControl {{",
        "\t\t\tNameSet = true,",
        "\t\t\tInputs = {",
        *(f"\t\t\t\t{text}," for text in inputs),
        "\t\t\t},",
        f"\t\t\tViewInfo = OperatorInfo {{ Pos = {{ {_COLUMN * column}, {_ROW * 3} }}, }},",
        "\t\t},",
    ]
