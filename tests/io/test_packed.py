"""Packed mattes: which object is in which channel, and that each value is the matte's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_mattes import info, plate_frame, read, soft

from rotomem.io.mattes import MatteSettings, MatteWriter

NAMES = ("hero", "car door", "c", "d", "e")


@pytest.mark.parametrize(("format", "top"), [("exr", None), ("png", 65535)])
def test_write_when_packed_then_four_to_a_file_in_their_order(tmp_path: Path, format: str, top: int | None) -> None:
    about = info()
    objects = dict(enumerate(NAMES, 1))
    planes = {k: soft(about) for k in objects}
    settings = MatteSettings(format=format, also=("packed",))
    with MatteWriter(tmp_path, info=about, objects=objects, settings=settings) as writer:
        writer.write(plate_frame(about), planes)
        assert writer.is_current(1001)
    assert writer.notes[-2:] == ("packed: R hero, G car door, B c, A d", "packed2: R e")
    packed = writer.paths_by_kind(1001)["packed"]
    assert [p.name for p in packed] == [f"sh010_packed.1001.{format}", f"sh010_packed2.1001.{format}"]
    for path, numbers, channels in ((packed[0], (1, 2, 3, 4), "RGBA"), (packed[1], (5,), "RGB")):
        spec, pixels = read(path)
        assert spec.channelnames == tuple(channels)
        told = json.loads(spec.getattribute("rotomem/objects"))
        assert told == {c: objects[k] for c, k in zip(channels, numbers, strict=False)}
        if format == "exr":
            for c, k in zip(channels, numbers, strict=False):
                assert np.array_equal(pixels[c], planes[k].astype(np.float16))
    assert not pixels["G"].any() and not pixels["B"].any()
    if top:
        assert np.array_equal(pixels["R"], np.rint(planes[5].astype(float) * top).astype(int))


def test_write_when_packed_png_has_an_alpha_then_no_channel_was_multiplied_with_it(tmp_path: Path) -> None:
    import av

    about = info()
    objects = dict(enumerate(NAMES[:4], 1))
    planes = {k: soft(about) for k in objects}
    settings = MatteSettings(format="png", depth="8", also=("packed",))
    with MatteWriter(tmp_path, info=about, objects=objects, settings=settings) as writer:
        writer.write(plate_frame(about), planes)
    with av.open(str(writer.paths_by_kind(1001)["packed"][0])) as container:  # another reader than the writer's
        rgba = next(container.decode(video=0)).to_ndarray(format="rgba")
    meant = np.stack([np.rint(planes[k].astype(float) * 255) for k in objects], -1)
    assert np.array_equal(rgba, meant)
