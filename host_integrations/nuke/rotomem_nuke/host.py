"""Nuke's data to a request of the engine's, and its mattes to Nuke's data. All calls in the main thread."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import nuke
import nuke.rotopaint

from .node import PLATE
from .objects import CHANNEL, HostProblem, Thing, file_of, frame_of, numbered, read_objects

_PASSES = ("Dot", "NoOp")
_MADE = "rotomem_"
_ROLES = (
    *("scene_linear", "rendering", "compositing_linear", "compositing_log", "color_timing", "color_picking", "data"),
    *("default", "matte_paint", "texture_paint", "aces_interchange", "cie_xyz_d65_interchange"),
)


class Plate(NamedTuple):
    """The plate as the engine reads it: `options` are those of its colour and view."""

    path: str
    first: int
    last: int
    options: dict[str, Any]


class Work(NamedTuple):
    """What one view's track needs, and what to tell the artist of it."""

    view: str
    fields: dict[str, Any]
    notes: list[str]


def work_of(node: nuke.Node, direction: str, segment: bool = False) -> list[Work]:
    """Write the key masks, and say what the engine shall do: one Work a view. Raises HostProblem."""
    # Nuke takes the value of such a knob for Tcl, the text is as it was written.
    things = read_objects(node["objects"].getText())  # type: ignore[attr-defined]
    folder = output_folder(node)
    asked = str(node["views"].value()).replace(",", " ").split()
    unknown = [view for view in asked if view not in nuke.views()]
    if unknown:
        raise HostProblem(f"Views: the project has no {', '.join(unknown)}. It has {', '.join(nuke.views())}.")
    work = []
    for view in asked or [""]:
        notes: list[str] = []
        plate = plate_of(node, view, notes)
        masks, keyed = _key_masks(node, things, plate, _of_view(os.path.join(folder, "keys"), view), view, notes)
        options = _options(node, plate, direction)
        fields: dict[str, Any] = {
            "plate": plate.path,
            "masks": masks,
            "out": _of_view(os.path.join(folder, "mattes"), view),
            "options": options,
        }
        if segment:
            fields["only"] = _segment(keyed, _range(node, plate), nuke.frame())
        work.append(Work(view, fields, notes))
    return work


def _options(node: nuke.Node, plate: Plate, direction: str) -> dict[str, Any]:
    options: dict[str, Any] = dict(plate.options, resume=True, direction=direction)
    options["model"] = str(node["model"].value()).strip() or "xmem-s"
    options["size"] = int(node["size"].value()) or None
    options["edge"] = str(node["edge"].value())
    if node["crypto"].value():
        options["also"] = ["crypto"]
    options["missing"] = str(node["missing"].value())
    options["frames"] = "{}-{}".format(*_range(node, plate))
    return options


def _range(node: nuke.Node, plate: Plate) -> tuple[int, int]:
    chosen = node["range"].value()
    if chosen == "plate":
        return plate.first, plate.last
    asked = node if chosen == "custom" else nuke.root()
    names = ("first", "last") if chosen == "custom" else ("first_frame", "last_frame")
    first, last = (int(asked[name].value()) for name in names)
    if max(first, plate.first) > min(last, plate.last):
        raise HostProblem(f"Range: {first}-{last} has no frame of the plate, which is {plate.first}-{plate.last}.")
    return max(first, plate.first), min(last, plate.last)


def _segment(keyed: list[int], whole: tuple[int, int], now: int) -> str:
    """The frames between the keys around the current frame, both keys included."""
    first, last = whole
    if not first <= now <= last:
        raise HostProblem(f"The current frame {now} is not one of {first}-{last}, the frames to track.")
    before, after = [f for f in keyed if f <= now], [f for f in keyed if f > now]
    return f"{max(before, default=first)}-{min(after, default=last)}"


# Where ----------------------------------------------------------------------------------------------------------


def output_folder(node: nuke.Node) -> str:
    """Where mattes and keys of a node go. Raises HostProblem."""
    chosen = node["folder"].getEvaluatedValue() if node["folder"].value() else ""  # type: ignore[attr-defined]
    script = nuke.root().name()
    if not chosen:
        if not script or script == "Root":
            raise HostProblem("Output: save the script first, or choose a folder.")
        chosen = os.path.join(os.path.dirname(os.path.abspath(script)), "rotomem", node.fullName())
    chosen = os.path.abspath(chosen).replace(os.sep, "/")
    if set(chosen) & set("%#"):
        raise HostProblem(
            f"Output: Nuke takes % and # in {chosen} for a frame number or a view. Choose another folder."
        )
    return chosen


def _of_view(folder: str, view: str) -> str:
    return os.path.join(folder, view).replace(os.sep, "/") if view else folder.replace(os.sep, "/")


# The plate ------------------------------------------------------------------------------------------------------


def plate_of(node: nuke.Node, view: str, notes: list[str]) -> Plate:
    """The plate of a node: files of its Read, or what `render_plate` wrote. Raises HostProblem."""
    above = node.input(0)
    if above is None:
        raise HostProblem("No plate. Connect a Read to the plate input.")
    if node["source"].value() == "input":
        return _rendered_plate(node, above, view, notes)
    read = _through(above)
    if read.Class() != "Read":
        told = f"Between plate and Read lies {read.name()} ({read.Class()}), which the files do not know of"
        raise HostProblem(f"{told}. Connect the Read itself, or set Plate to input.")
    shifted = str(read["frame"].value()).strip()
    if shifted and shifted != "0":
        mode = read["frame_mode"].value()
        raise HostProblem(f"{read.name()} shifts its frames ({mode}: {shifted}). Undo that, or set Plate to input.")
    with _full_size():
        path = nuke.filename(read)
    if not path:
        raise HostProblem(f"{read.name()} names no file.")
    if re.search("%V|%v", path):
        if not view:
            raise HostProblem(f"The plate's path holds a view ({path}). List the views to track in Views.")
        path = path.replace("%V", view).replace("%v", view[0])
        view = ""
    if not numbered(path):
        raise HostProblem(f"{path} is no sequence of files. Set Plate to input.")
    first, last = int(read["first"].value()), int(read["last"].value())
    if not any(os.path.isfile(file_of(path, frame)) for frame in range(first, last + 1)):
        raise HostProblem(f"The plate is not on disk: {path} {first}-{last}")
    options = _colour(read)
    if view and nuke.views() != [view]:
        options["view"] = view
    return Plate(path, first, last, options)


def _through(node: nuke.Node) -> nuke.Node:
    """The node that really makes the picture."""
    while node.Class() in _PASSES:
        above = node.input(0)
        if above is None:
            break
        node = above
    return node


def _rendered_plate(node: nuke.Node, above: nuke.Node, view: str, notes: list[str]) -> Plate:
    path, first, last = _plate_files(node, above, view)
    missing = [f for f in range(first, last + 1) if not os.path.isfile(file_of(path, f))]
    if missing:
        write_frames(above, path, missing, view, channels="rgb")
    else:
        notes.append("the plate is as it was rendered before; press Render input where it has changed")
    return Plate(path, first, last, _working_space())


def _plate_files(node: nuke.Node, above: nuke.Node, view: str) -> tuple[str, int, int]:
    folder = _of_view(os.path.join(output_folder(node), "plate"), view)
    return f"{folder}/plate.%04d.exr", above.firstFrame(), above.lastFrame()


def render_plate(node: nuke.Node) -> int:
    """Render the plate input anew; how many frames. Raises HostProblem."""
    above = node.input(0)
    if above is None:
        raise HostProblem("No plate. Connect something to the plate input.")
    count = 0
    for view in str(node["views"].value()).replace(",", " ").split() or [""]:
        path, first, last = _plate_files(node, above, view)
        write_frames(above, path, list(range(first, last + 1)), view, channels="rgb")
        count += last - first + 1
    return count


# Colour ---------------------------------------------------------------------------------------------------------


def _colour(read: nuke.Node) -> dict[str, Any]:
    """The plate's colour space and the project's config, as options. Raises HostProblem."""
    if read["raw"].value():
        return _working_space()
    space = _space(str(read["colorspace"].value()))
    if nuke.root()["colorManagement"].value() == "OCIO":
        return {"ocio_config": ocio_config(), "input_space": space}
    # Nuke's own transforms have no OCIO names; linear and sRGB are what files are taken for by their kind.
    if space.lower() not in ("linear", "srgb"):
        raise HostProblem(
            f"{read.name()} is {space}, which only Nuke knows. Set Plate to input, or the project to OCIO."
        )
    return {}


def _working_space() -> dict[str, Any]:
    if nuke.root()["colorManagement"].value() != "OCIO":
        return {}
    return {"ocio_config": ocio_config(), "input_space": _space(str(nuke.root()["workingSpaceLUT"].value()))}


def _space(shown: str) -> str:
    """The name of a colour space from what a knob shows: `default (ACES - ACEScg)`, `scene_linear (ACEScg)`."""
    name = shown.split("\t")[0].strip()
    found = re.match(r"default \((.+)\)$", name)
    name = found[1] if found else name
    found = re.match(r"(\w+) \((.+)\)$", name)
    return found[2] if found and found[1] in _ROLES else name


def ocio_config() -> str:
    """The path of the project's OCIO config. Raises HostProblem."""
    if os.environ.get("OCIO"):
        return os.environ["OCIO"]
    root = nuke.root()
    name = str(root["OCIO_config"].value())
    if name == "custom":
        path = str(root["customOCIOConfigPath"].getEvaluatedValue() or "")  # type: ignore[attr-defined]
        if path.startswith("ocio://") or os.path.isfile(path):
            return path
        raise HostProblem(f"Project settings: the OCIO config is not there: {path or '(no path)'}")
    folder = os.path.join(os.path.dirname(nuke.env["ExecutablePath"]), "plugins", "OCIOConfigs", "configs")
    for path in (os.path.join(folder, name, "config.ocio"), os.path.join(folder, name + ".ocio")):
        if os.path.isfile(path):
            return path.replace(os.sep, "/")
    raise HostProblem(f"The OCIO config {name} was not found in {folder}. In the project settings choose custom.")


# Keys -----------------------------------------------------------------------------------------------------------


def _key_masks(
    node: nuke.Node, things: list[Thing], plate: Plate, folder: str, view: str, notes: list[str]
) -> tuple[list[str], list[int]]:
    """Texts as `rotomem track --mask` takes them, and the frames they are on."""
    masks: list[str] = []
    keyed: list[int] = []
    first, last = _range(node, plate)
    for number, thing in enumerate(things, 1):
        try:
            if thing.is_file:
                masks += _of_file(thing, keyed)
                continue
            source, channel = _source(node, thing)
            frames = thing.frames or key_frames(source, view) or [nuke.frame()]
            outside = [f for f in frames if not first <= f <= last]
            frames = [f for f in frames if first <= f <= last]
            if outside:
                notes.append(f"{thing.name}: keys outside of {first}-{last} are left out: {_listed(outside)}")
            if not frames:
                raise HostProblem(f"no key within {first}-{last}; its keys are on {_listed(outside)}.")
            _same_size(node, source)
            path = f"{folder}/{number}_{_safe(thing.name)}.%04d.exr"
            write_frames(source, path, frames, view, channel=channel)
            masks += [f"{thing.name}@{frame}={file_of(path, frame)}" for frame in frames]
            keyed += frames
        except HostProblem as problem:
            raise HostProblem(f"{thing.name}: {problem}") from None
    return masks, sorted(set(keyed))


def _of_file(thing: Thing, keyed: list[int]) -> list[str]:
    splines = thing.source.lower().endswith((".fxs", ".json", ".nk"))
    number = frame_of(thing.source)
    if splines and not thing.frames:
        return [f"{thing.name}={thing.source}"]
    frames = thing.frames or ([number] if number is not None else [nuke.frame()])
    paths = [file_of(thing.source, frame) for frame in frames]
    for path in paths:
        if not os.path.isfile(path):
            raise HostProblem(f"there is no file {path}")
    keyed += frames
    return [f"{thing.name}@{frame}={path}" for frame, path in zip(frames, paths)]


def _source(node: nuke.Node, thing: Thing) -> tuple[nuke.Node, str]:
    """The node and the channel that an object's keys are in."""
    group = node.parent()
    named = group.node(thing.source) if thing.source else None
    above = named or node.input(1)
    if above is None:
        raise HostProblem("no mask. Connect a Roto, or anything with an alpha, to the mask input.")
    channel = CHANNEL if named or not thing.source else thing.source
    if channel not in above.channels():
        told = f"{above.name()} has no channel {channel}; it has {', '.join(above.channels()) or 'none'}"
        raise HostProblem(f"{told}. Write a channel, the name of a node beside this one, or a file's whole path.")
    return above, channel


def _same_size(node: nuke.Node, source: nuke.Node) -> None:
    plate = node.input(0)
    if plate is not None and (source.width(), source.height()) != (plate.width(), plate.height()):
        told = f"{source.name()} is {source.width()}x{source.height()}, the plate {plate.width()}x{plate.height()}"
        raise HostProblem(f"{told}. Set the Roto's format, or add a Reformat.")


def key_frames(node: nuke.Node, view: str = "") -> list[int]:
    """The frames on which the shapes of the first Roto upstream are keyed; empty where there is none."""
    above: nuke.Node | None = node
    while above is not None and "curves" not in above.knobs():
        above = above.input(0)
    if above is None:
        return []
    times: list[float] = []
    _times_of(above["curves"].rootLayer, [view] if view else [], times)  # type: ignore[attr-defined]
    return sorted({round(time) for time in times})


def _times_of(element: nuke.rotopaint.Element, view: list[str], times: list[float]) -> None:
    """Key times of a shape's points, of a stroke, of a layer and what is in it, and of their transforms."""
    if isinstance(element, nuke.rotopaint.Layer):
        for inner in element:
            _times_of(inner, view, times)
    elif isinstance(element, nuke.rotopaint.Shape):
        for point in element:
            for part in (point.center, point.leftTangent, point.rightTangent, point.featherCenter):
                times += part.getControlPointKeyTimes(*view)
    elif isinstance(element, nuke.rotopaint.Stroke):
        for part in element:
            times += part.getControlPointKeyTimes(*view)
    else:
        return
    times += element.getTransform().getTransformKeyTimes(*view)


def write_frames(
    source: nuke.Node,
    path: str,
    frames: list[int],
    view: str,
    channel: str = CHANNEL,
    channels: str = "alpha",
) -> None:
    """Write frames of what a node shows, raw, by a Write that is gone afterwards. Raises HostProblem."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    made: list[nuke.Node] = []
    with _full_size(), source.parent():
        try:
            if channel != CHANNEL:
                copy = nuke.nodes.Copy(inputs=[source, source])
                made.append(copy)
                copy["from0"].setValue(channel)
                copy["to0"].setValue(CHANNEL)
                source = copy
            write = nuke.nodes.Write(inputs=[source])
            made.append(write)
            write["file"].setValue(tcl_text(path))
            for name, value in (
                ("file_type", "exr"),
                ("datatype", "16 bit half"),
                ("compression", "Zip (1 scanline)"),
                ("channels", channels),
                ("raw", True),
            ):
                write[name].setValue(value)
            for frame in frames:
                nuke.execute(write, frame, frame, 1, [view or nuke.views()[0]])
        except RuntimeError as error:
            raise HostProblem(f"Nuke could not write {path}: {error}") from None
        finally:
            for node in reversed(made):
                nuke.delete(node)
    lost = [frame for frame in frames if not os.path.isfile(file_of(path, frame))]
    if lost:
        raise HostProblem(f"Nuke wrote no {file_of(path, lost[0])}. Is the folder writable?")


@contextlib.contextmanager
def _full_size() -> Iterator[None]:
    """Proxy mode off for a moment: keys and plate are of full size; and nothing of it to be undone."""
    proxy = nuke.root()["proxy"]
    before = proxy.value()
    nuke.Undo.disable()
    try:
        proxy.setValue(False)
        yield
    finally:
        proxy.setValue(before)
        nuke.Undo.enable()


# Mattes ---------------------------------------------------------------------------------------------------------


class Sequence(NamedTuple):
    """Files that were written, as a Read takes them: %04d for frames, %V where each view has its own."""

    path: str
    first: int
    last: int


def sequence_of(file: str, view: str) -> Sequence:
    """The sequence one of whose files this is, with the range that is on disk."""
    folder, name = os.path.split(file.replace(os.sep, "/"))
    found = re.match(r"(.*?)(-?\d+)(\.\w+)$", name)
    if not found:
        raise HostProblem(f"The engine wrote {file}, which is no frame of a sequence.")
    head, number, suffix = found.groups()
    like = re.compile(re.escape(head) + r"(-?\d+)" + re.escape(suffix) + "$")
    frames = [int(one[1]) for one in map(like.match, os.listdir(folder)) if one]
    if view:
        folder = os.path.dirname(folder) + "/%V"
    return Sequence(f"{folder}/{head}%0{len(number)}d{suffix}", min(frames), max(frames))


def show(node: nuke.Node, report: dict[str, Any], view: str) -> list[Sequence]:
    """Wire what was written into the node's output; the sequences."""
    assert isinstance(node, nuke.Group)
    mattes = sequence_of(report["outputs"][0], view)
    others = [sequence_of(files[0], view) for files in report["also"].values()]
    clear(node)
    with node:
        read = make_read(mattes, f"{_MADE}mattes", 200, 100)
        stream = node.node(PLATE)
        layers = list(report["objects"].values())
        for i, layer in enumerate(layers):
            own = f"{layer}.alpha"
            source = CHANNEL if len(layers) == 1 else own  # one matte alone is the file's alpha
            if layer not in nuke.layers():
                nuke.Layer(layer, [own])
            copy = nuke.nodes.Copy(inputs=[stream, read])
            copy.setName(f"{_MADE}{i + 1}")
            copy.setXYpos(0, 150 + 50 * i)
            for slot, target in enumerate([own, CHANNEL] if i == 0 else [own]):
                copy[f"from{slot}"].setValue(source)
                copy[f"to{slot}"].setValue(target)
            stream = copy
        _output(node).setInput(0, stream)
    return [mattes, *others]


def clear(node: nuke.Node) -> None:
    """Let the plate through; nodes the artist put into the group stay."""
    assert isinstance(node, nuke.Group)
    _output(node).setInput(0, node.node(PLATE))
    for inner in node.nodes():
        if inner.name().startswith(_MADE):
            nuke.delete(inner)


def _output(group: nuke.Group) -> nuke.Node:
    for inner in group.nodes():
        if inner.Class() == "Output":
            return inner
    raise HostProblem(f"{group.name()} has no Output inside. Make a new Rotomem node.")


def make_read(sequence: Sequence, name: str, x: int, y: int) -> nuke.Node:
    """A Read of a sequence, in the group that is entered: data, its own range, never a copy of older files."""
    read = nuke.nodes.Read()
    read["file"].setValue(tcl_text(sequence.path))
    for knob, value in (
        ("first", sequence.first),
        ("last", sequence.last),
        ("origfirst", sequence.first),
        ("origlast", sequence.last),
        ("raw", True),
        ("on_error", "black"),
        ("localizationPolicy", "off"),
    ):
        read[knob].setValue(value)
    read.setName(name)
    read.setXYpos(x, y)
    read["reload"].execute()  # type: ignore[attr-defined]
    return read


def make_reads(node: nuke.Node) -> list[nuke.Node]:
    """A Read beside the node for every sequence in its folder. Raises HostProblem where there is none."""
    views = str(node["views"].value()).replace(",", " ").split()
    folder = _of_view(os.path.join(output_folder(node), "mattes"), views[0] if views else "")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    files = {re.sub(r"-?\d+\.exr$", "", name): name for name in names if re.search(r"\d\.exr$", name)}
    if not files:
        raise HostProblem(f"There are no mattes in {folder}. Track first.")
    reads = []
    with node.parent():
        for i, (stem, name) in enumerate(files.items()):
            sequence = sequence_of(f"{folder}/{name}", views[0] if views else "")
            called = f"{node.name()}_{_safe(stem.rstrip('._'))}"
            reads.append(make_read(sequence, called, node.xpos() + 120 * (i + 1), node.ypos()))
    return reads


# Texts ----------------------------------------------------------------------------------------------------------


def tcl_text(text: str) -> str:
    """The value of a file knob that means this path: what Nuke would evaluate in it is evaluated to itself."""
    if not set(text) & set("[]$\\"):
        return text
    return "".join(f"[format %c {ord(c)}]" if c in '[]$\\"{}' else c for c in text)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "object"


def _listed(frames: list[int]) -> str:
    return ", ".join(map(str, frames[:5])) + (", ..." if len(frames) > 5 else "")
