from __future__ import annotations

import pytest
import torch

from rotomem.bench.attention import CASES as ATTENTIONS
from rotomem.bench.cases import READS, Memory, chosen, inputs, picture
from rotomem.bench.clip import Clip
from rotomem.bench.consolidate import CASES as CONSOLIDATIONS
from rotomem.errors import UsageError


def test_cases_when_named_then_names_tell_them_apart() -> None:
    for cases in (READS, CONSOLIDATIONS, ATTENTIONS):
        assert len({case.name for case in cases}) == len(cases)
    assert Memory("480p", 1, 10, 10_000) in READS and Memory("4K", 10, 10, 0) in READS
    largest = Memory("4K", 1, 10)
    assert (largest.elements, largest.positions) == (345_600, 34_560)
    assert Memory("480p", 3, 10, 10_000).elements == 26_200


def test_chosen_when_names_and_objects_then_both_hold_and_none_is_an_error() -> None:
    left = chosen(READS, ["480p"], [3])
    assert [case.name for case in left] == ["480p 3 objects 10 frames + 10k"]
    with pytest.raises(UsageError, match="no case is called so"):
        chosen(READS, ["8K"], [])


def test_picture_when_no_size_then_error_names_it() -> None:
    assert picture("96x160") == (96, 160)
    with pytest.raises(UsageError, match="no size '96x'"):
        picture("96x")


def test_inputs_when_made_then_neighbouring_frames_resemble_each_other() -> None:
    case = Memory("96x160", 2, 3, 50)
    given = inputs(case, torch.device("cpu"))
    assert given.key.shape == (1, 64, case.elements) and given.value.shape == (1, 2, 512, case.elements)
    assert given.key.stride(1) == 1 and given.value.stride(2) == 1, "as a bank stores them"
    distances = torch.cdist(given.query_key[0].T, given.key[0, :, 50:].T)
    assert distances.amin(1).mean() < 0.5 * distances.median()
    again = inputs(case, torch.device("cpu"))
    assert torch.equal(given.value, again.value) and torch.equal(given.key, again.key)


@pytest.mark.parametrize("objects", [1, 3, 10])
def test_clip_when_time_goes_by_then_all_objects_stay_in_sight_and_move(objects: int) -> None:
    clip = Clip(96, 160, objects)
    masks = [clip.mask(t) for t in (0, 17, 4000)]
    for mask in masks:
        labels, counts = torch.unique(torch.from_numpy(mask), return_counts=True)
        assert labels.tolist() == list(range(objects + 1)) and counts.min() > 50
    assert (masks[0] != masks[1]).mean() > 0.01
    frame = clip.frame(17)
    assert frame.shape == (96, 160, 3) and frame.dtype == "float32" and 0 <= frame.min() <= frame.max() <= 1


@pytest.mark.parametrize("size", [(480, 864), (97, 40), (33, 150)])
def test_clip_when_any_time_comes_then_there_is_a_frame(size: tuple[int, int]) -> None:
    clip = Clip(*size, 3)
    for t in range(0, 130, 3 if size[0] < 480 else 13):
        frame = clip.frame(t)
        assert frame.shape == (*size, 3) and 0 <= frame.min() <= frame.max() <= 1
