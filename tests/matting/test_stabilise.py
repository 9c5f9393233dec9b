import numpy as np
import pytest
import torch

from rotomem.matting.stabilise import Motions, Neighbour, stabilise

h, w = 96, 128


def scene(t, speed=3.0):
    """A textured disc that moves over a textured ground: picture [h, w, 3] and alpha [h, w]."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)

    def waves(dx):
        # waves of several lengths and directions, as photographs have
        return 0.5 + 0.12 * sum(np.sin((x - dx) * a + y * b + c) for a, b, c in
                                ((0.31, 0.12, 1), (-0.17, 0.29, 2), (0.05, -0.4, 3), (0.55, 0.35, 4)))  # fmt: skip

    alpha = np.clip(24.5 - np.hypot(x - 45 - speed * t, y - 48), 0, 1).astype(np.float32)
    front = np.stack([waves(speed * t), waves(speed * t + 5), 0.9 + 0 * x], -1)
    back = np.stack([waves(40.0), waves(71.0), 0.2 + 0 * x], -1)
    picture = alpha[..., None] * front + (1 - alpha[..., None]) * back
    return torch.from_numpy(picture.astype(np.float32)), alpha


def steadied(pictures, mattes, at, strength=1.0):
    reached = Motions().from_frame([(i, None) for i in range(len(mattes))], pictures, at)
    return stabilise(mattes[at], [Neighbour(mattes[k], motion, trust) for k, motion, trust in reached], strength)


def test_stabilise_when_an_edge_trembles_then_it_trembles_less_and_stays_where_it_is():
    pictures = [scene(t)[0] for t in range(5)]

    def soft(t, radius):  # as wide as a network's
        y, x = np.mgrid[0:h, 0:w].astype(np.float32)
        return np.clip((radius - np.hypot(y - 48, x - 45 - 3 * t)) / 6 + 0.5, 0, 1).astype(np.float32)

    truth = [soft(t, 24.5) for t in range(5)]
    shaken = [soft(t, 24.5 + off) for t, off in enumerate((0.9, -0.8, 1.1, -1.0, 0.2))]
    before = np.abs(shaken[2] - truth[2]).sum()
    assert np.abs(steadied(pictures, shaken, 2) - truth[2]).sum() < 0.6 * before
    half = np.abs(steadied(pictures, shaken, 2, 0.3) - truth[2]).sum()
    assert np.abs(steadied(pictures, shaken, 2) - truth[2]).sum() < half < before


def test_stabilise_when_the_object_moves_and_the_matte_is_right_then_it_is_not_smeared():
    pictures, truth = zip(*(scene(t) for t in range(5)), strict=True)
    lagging = np.mean(truth, 0)
    steady = steadied(pictures, truth, 2)
    assert np.abs(steady - truth[2]).sum() < 0.15 * np.abs(lagging - truth[2]).sum()


def test_stabilise_when_neighbours_disagree_wholly_then_the_frame_has_its_own_way():
    pictures, truth = zip(*(scene(0) for _ in range(3)), strict=True)
    mattes = [np.zeros((h, w), np.float32), truth[1], np.zeros((h, w), np.float32)]
    middle = np.zeros((h, w), bool)
    middle[40:56, 37:53] = True
    assert (steadied(pictures, mattes, 1)[middle] == 1).all()


def test_stabilise_when_strength_is_zero_or_alone_then_nothing_changes():
    picture, alpha = scene(0)
    assert stabilise(alpha, [], 1.0) is alpha
    assert steadied([picture] * 3, [alpha] * 3, 1, 0.0) is alpha


def test_motions_when_a_picture_is_missing_then_nothing_beyond_it_is_reached():
    pictures = [scene(t)[0] for t in range(5)]
    pictures[3] = None
    reached = Motions().from_frame([(i, None) for i in range(5)], pictures, 2)
    assert [k for k, _, _ in reached] == [1, 0]


def test_motions_when_two_frames_away_then_steps_add_up():
    pictures = [scene(t)[0] for t in range(5)]
    reached = {
        k: (motion, trust) for k, motion, trust in Motions().from_frame([(i, 0) for i in range(5)], pictures, 2)
    }
    inside = np.hypot(*np.mgrid[-48:48, -51:77]) < 14
    for k, expected in ((0, -6), (1, -3), (3, 3), (4, 6)):
        motion, trust = reached[k]
        known = inside & (trust > 0.5)
        assert known.sum() > 0.8 * inside.sum()
        assert np.median(motion[known][:, 0]) == pytest.approx(expected, abs=0.25)


def test_motions_when_windows_differ_then_their_motions_are_not_mixed_up():
    motions = Motions()
    still, moving = [scene(0)[0]] * 2, [scene(0)[0], scene(1)[0]]
    first = motions.from_frame([(0, "a"), (1, "a")], still, 0)[0][1]
    second = motions.from_frame([(0, "b"), (1, "b")], moving, 0)[0][1]
    assert np.abs(first).max() < 0.1 and np.median(second[40:56, 37:53, 0]) == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("way", [1, -1])
def test_motions_when_a_shot_is_gone_through_then_each_pair_is_estimated_once_and_few_are_kept(monkeypatch, way):
    from rotomem.matting import stabilise as module

    pictures = [torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(t)) for t in range(12)]
    estimated = []

    def counted(before, after):
        estimated.append((before[0, 0, 0], after[0, 0, 0]))
        return ((np.zeros((24, 32, 2), np.float32), np.ones((24, 32), bool)),) * 2

    monkeypatch.setattr(module, "estimate_motions", counted)
    motions = Motions()
    for at in range(12)[::way]:
        low, high = max(at - 2, 0), min(at + 3, 12)
        motions.from_frame([(f, 0) for f in range(low, high)], pictures[low:high], at - low)
        assert len(motions._pairs) <= 8  # both ways between five frames
    assert len(estimated) == 11
