from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from rotomem.errors import InputError, OutputError
from rotomem.train.plot import draw_log, read_log, smoothed


def pixels(path: Path) -> np.ndarray:
    return np.asarray(oiio.ImageBuf(str(path)).get_pixels(oiio.FLOAT))[..., :3]


def test_smoothed_when_values_alternate_then_their_mean_remains() -> None:
    assert np.allclose(smoothed(np.asarray([1.0, 3.0] * 50), 20)[10:-10], 2)
    assert np.array_equal(smoothed(np.asarray([1.0, 2.0]), 1), [1, 2])
    assert np.allclose(smoothed(np.full(5, 7.0), 100), 7)


@pytest.mark.parametrize("steps", [1, 300])
def test_draw_log_when_losses_fall_then_the_curve_leads_down(steps: int, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [
        {"step": i + 1, "elapsed_s": i * 2.0, "loss": 2 * 0.99**i, "rate": 1e-3, "overlap": 0.5} for i in range(steps)
    ]
    lines.append({"step": steps, "elapsed_s": steps * 2.0, "validation_jf": 0.61})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')
    assert len(read_log(log)) == steps + 1
    picture = pixels(draw_log(log, tmp_path / "plot.png"))
    assert picture.shape[0] == 4 * 254  # loss, overlap, rate, validation
    if steps > 1:
        first = picture[34:224, 66:686]
        red = (first[..., 0] > 0.6) & (first[..., 1] < 0.4) & (first[..., 2] < 0.4)
        left, right = (np.nonzero(red[:, part].any(1))[0].mean() for part in (slice(20, 60), slice(-60, -20)))
        assert right > left + 100


def test_draw_log_when_there_is_nothing_to_draw_then_error_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the log.*log\.jsonl"):
        draw_log(tmp_path / "log.jsonl", tmp_path / "plot.png")
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(InputError, match="no step yet"):
        draw_log(tmp_path / "log.jsonl", tmp_path / "plot.png")
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": null}\n{"step": 2, "loss": NaN}\n')
    with pytest.raises(InputError, match="no loss in the log is finite"):
        draw_log(tmp_path / "log.jsonl", tmp_path / "plot.png")


def test_draw_log_when_the_picture_cannot_be_put_there_then_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n')
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(OutputError, match=r"cannot write the plot: .*plot\.png"):
        draw_log(tmp_path / "log.jsonl", tmp_path / "plot.png")
    assert not (tmp_path / ".plot.part.png").exists()
