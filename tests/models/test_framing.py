"""Bringing pictures to AOT's grid and back."""

from __future__ import annotations

import pytest
import torch

from rotomem.models.layers.framing import ResizeToGrid


@pytest.mark.parametrize(
    "framing, size, want",
    (
        (ResizeToGrid(), (480, 854), (481, 849)),
        (ResizeToGrid(), (97, 161), (97, 161)),
        (ResizeToGrid(), (585, 585), (577, 577)),  # 36.5 steps: half to even
        (ResizeToGrid(), (3, 601), (17, 609)),  # 37.5 steps
        (ResizeToGrid(offset=0), (480, 854), (480, 848)),
        (ResizeToGrid(longest=1040), (1080, 1920), (577, 1041)),
    ),
)
def test_size_when_a_picture_is_off_the_grid_then_the_nearest_raster_on_it(
    framing: ResizeToGrid, size: tuple[int, int], want: tuple[int, int]
) -> None:
    assert framing.size(*size) == want
    assert framing.image(torch.rand(1, 3, *size)).shape[-2:] == want
    assert framing.mask(torch.rand(1, 2, *size)).shape[-2:] == want
    assert framing.restore(torch.rand(1, 2, *want), *size).shape[-2:] == size


def test_image_when_already_on_the_grid_then_it_is_untouched() -> None:
    image = torch.rand(1, 3, 33, 49)
    assert ResizeToGrid().image(image) is image


def test_mask_when_resized_then_labels_stay_hard() -> None:
    mask = (torch.rand(1, 1, 40, 50) > 0.5).float()
    assert set(ResizeToGrid().mask(mask).unique().tolist()) <= {0.0, 1.0}


def test_restore_when_the_model_is_corner_to_corner_then_corners_stay() -> None:
    p = torch.rand(1, 2, 33, 49)
    back = ResizeToGrid().restore(p, 40, 60)
    corners = (..., (0, 0, -1, -1), (0, -1, 0, -1))
    assert torch.allclose(back[corners], p[corners], atol=1e-6)
