"""What a run of a project would do: each segment with its stored result, or why there is none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rotomem.engine.store import SegmentStore, digest
from rotomem.io.sequence import compact_frames, parse_frames
from rotomem.types import ObjectId

if TYPE_CHECKING:
    from rotomem.engine.survey import Survey

_SHORT = 32  # characters of a value that is worth showing


@dataclass(frozen=True)
class PlannedSegment:
    """A stretch between keys of the objects that are tracked together.

    objects   names
    frames    range text of the frames it makes
    keys      key frames it sees
    digest    the name of its result in the store
    nbytes    of its stored result; None where there is none
    frozen    whether all its mattes are frozen, so that it is never tracked
    why       why it has to be tracked; "" where it has not
    """

    objects: tuple[str, ...]
    frames: str
    keys: tuple[int, ...]
    digest: str
    nbytes: int | None
    frozen: bool
    why: str


def plan_run(survey: Survey, store: SegmentStore) -> list[PlannedSegment]:
    """Every segment of a shot, in the order of its frames."""
    earlier = []
    for entry in store.entries():
        earlier.append(entry.inputs)
        entry.close()
    planned = []
    for group, own in enumerate(survey.segments):
        shot = survey.shots[group]
        names = {i: survey.names[i] for i in shot.objects}
        keys = {f"key {frame} object {i}" for frame, key in shot.keys.items() for i in key.objects}
        for segment in own:
            inputs = survey.provenance.inputs(group, segment)
            name = digest(inputs)
            nbytes = None
            if (found := store.get(name, segment.frames)) is not None:
                nbytes = found.nbytes
                found.close()
            frozen = survey.frozen.issuperset(segment.frames)
            done = frozen or nbytes is not None
            why = "" if done else _why(inputs, earlier, names, keys)
            told = compact_frames(segment.frames)
            one = PlannedSegment(tuple(names.values()), told, segment.keys, name, nbytes, frozen, why)
            planned.append((segment.frames[0], group, one))
    return [one for _, _, one in sorted(planned, key=lambda item: item[:2])]


def _why(
    inputs: Mapping[str, str],
    earlier: Sequence[Mapping[str, str]],
    names: Mapping[ObjectId, str],
    keys: Collection[str],
) -> str:
    """What is other than in the stored segment of the same objects that this one has most in common with.

    earlier   inputs of all stored segments
    names     of the objects
    keys      all keys of the objects, named as inputs are
    """
    frames = set(parse_frames(inputs["frames"]))

    def common(told: Mapping[str, str]) -> tuple[int, int]:
        same = sum(told.get(name) == value for name, value in inputs.items())
        return len(frames.intersection(parse_frames(told["frames"]))), same

    same = [told for told in earlier if _objects(told) == _objects(inputs)]
    near = max(same, key=common, default=None)
    if near is None or not common(near)[0]:
        return "no result yet"
    if near == inputs:
        return "its result is damaged"
    # With a key that comes or goes a segment also sees others than before, that were there all the time.
    gone = {name for name in near if name.startswith("key ") and name not in keys}
    new = {name for name in keys if not any(name in told for told in same)}
    return ", ".join(_changes(near, inputs, names, gone | new))


def _objects(inputs: Mapping[str, str]) -> set[str]:
    return {name for name in inputs if name.startswith("absent object ")}


def _changes(
    before: Mapping[str, str], now: Mapping[str, str], names: Mapping[ObjectId, str], moved: Collection[str]
) -> list[str]:
    """What is other, in words; of keys that only one of both sees, those in `moved`: that came or went."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    keys: dict[tuple[int, str], list[str]] = {}
    plate: list[int] = []
    others: list[str] = []
    for name in changed:
        was, value = before.get(name), now.get(name)
        match name.split():
            case ["key", frame, "object", number]:
                if name in moved or (was is not None and value is not None):
                    what = "changed" if name not in moved else "is gone" if value is None else "is new"
                    keys.setdefault((int(frame), what), []).append(names[int(number)])
            case ["absent", "object", number]:
                others.append(f"absence of {names[int(number)]} changed")
            case ["plate", frame]:
                plate += [int(frame)] if was is not None and value is not None else []
            case ["frames"]:
                pass  # of other keys, which are told, or of another plate
            case _:
                others.extend(_settings(name, was, value))
    said = [f"key {frame} of {' and '.join(drawn)} {what}" for (frame, what), drawn in sorted(keys.items())] + others
    if plate:
        said.append(f"plate {compact_frames(plate)} changed")
    return said or [f"frames were {before['frames']}" if "frames" in changed else "it sees other keys"]


def _settings(name: str, was: str | None, value: str | None) -> list[str]:
    """A changed input, in as few words as say it; of `a=1 b=2` only what differs."""
    if was == value:
        return []
    if was and value and "=" in was and "=" in value:
        before, now = (dict(word.partition("=")[::2] for word in text.split()) for text in (was, value))
        return [said for part in {**before, **now} for said in _settings(part, before.get(part), now.get(part))]
    if was is None or value is None or max(len(was), len(value)) > _SHORT:
        return [f"{name} changed"]
    return [f"{name} was {was}, is {value}"]
