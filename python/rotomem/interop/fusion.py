"""Fusion compositions and settings that load a plate and its mattes, for Fusion Studio and Resolve's Fusion page."""

from __future__ import annotations

from collections.abc import Sequence

from rotomem.interop.footage import Footage, Matte
from rotomem.interop.quoting import lua

# What Fusion's own files name a channel that is not to be found.
_NO_CHANNEL = "SomethingThatWontMatchHopefully"
_COLUMN, _ROW = 110.0, 49.5
_MEDIA_OUT = (
    "\t\tMediaOut1 = MediaOut {",
    "\t\t\tInputs = {",
    '\t\t\t\tIndex = Input { Value = "0", },',
    '\t\t\t\tInput = Input { SourceOp = "RotomemAlpha1", Source = "Output", },',
    "\t\t\t},",
    f"\t\t\tViewInfo = OperatorInfo {{ Pos = {{ {_COLUMN}, {_ROW * 5} }}, }},",
    "\t\t},",
)


def fusion_comp(plate: Footage, mattes: Sequence[Footage], *, origin: int | None = None) -> str:
    """A composition (`.comp`): `TimelineItem:ImportFusionComp`, File > Open, or pasted.

    origin   for a clip on a timeline of Resolve: the frame on disk that the clip shows first, which is time 0 there;
             the first object then goes to the clip's MediaOut. None: times are the frames on disk, for Fusion Studio
    """
    zero = origin or 0
    head = [
        "Composition {",
        f"\tCurrentTime = {plate.first if origin is None else 0},",
        f"\tRenderRange = {{ {plate.first - zero}, {plate.last - zero} }},",
        f"\tGlobalRange = {{ {plate.first - zero}, {plate.last - zero} }},",
    ]
    out = () if origin is None else _MEDIA_OUT
    return "\n".join([*head, *_tools(plate, mattes, zero, out), "}"]) + "\n"


def fusion_setting(plate: Footage, mattes: Sequence[Footage], *, origin: int = 0) -> str:
    """The same tools as a setting (`.setting`), to be pasted or dropped into a composition.

    origin   the frame on disk that is at time 0 of the composition
    """
    return "\n".join(["{", *_tools(plate, mattes, origin), "}"]) + "\n"


def _tools(plate: Footage, mattes: Sequence[Footage], zero: int = 0, more: Sequence[str] = ()) -> list[str]:
    """A Loader for the plate; for every object a Loader, its channel as alpha, and a MatteControl that puts it on.

    Frame `zero` on disk is at time 0.
    """
    lines = ["\tTools = ordered() {", *_loader("RotomemPlate", plate, None, 0, 0, zero)]
    objects = [(footage, matte) for footage in mattes for matte in footage.mattes]
    for i, (footage, matte) in enumerate(objects, 1):
        lines += _loader(f"RotomemMatte{i}", footage, matte, i, 1, zero)
        lines += _matte_control(f"RotomemAlpha{i}", f"RotomemMatte{i}", i)
    return [*lines, *more, "\t}"]


def _loader(name: str, footage: Footage, matte: Matte | None, column: int, row: int, zero: int) -> list[str]:
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
        "GlobalStart": str(footage.first - zero),
        "GlobalEnd": str(footage.last - zero),
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
