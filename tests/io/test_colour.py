"""The colour decision, the curve, and pixels that no network may see."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PyOpenColorIO as ocio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rotomem.errors import ColourError, ShapeError, UsageError
from rotomem.io.colour import KNEE, NetworkColour, TamedPixels, decide_colour, shoulder, tame
from rotomem.io.plate import PlateInfo
from rotomem.types import Window

LOGC4 = "ARRI LogC4"
REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
AP0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)
AP1 = (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767)


@pytest.fixture(autouse=True)
def no_config_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCIO", raising=False)


def info(
    name: str = "plates/sh010.1001.exr",
    pixel_type: str = "half",
    hints: Mapping[str, Any] | None = None,
    kind: str = "",
) -> PlateInfo:
    window = Window(0, 0, 4, 4)
    return PlateInfo(
        path=name,
        kind=kind or Path(name).suffix[1:],
        frames=(1001,),
        missing=(),
        padding=4,
        stem="sh010",
        display_window=window,
        canvas=window,
        pixel_type=pixel_type,
        colour_hints=hints or {},
        first_file=name,
    )


def grey(*levels: float) -> np.ndarray:
    return np.repeat(np.array(levels, np.float32)[None, :, None], 3, axis=2)


def shown(levels: np.ndarray | tuple[float, ...], plate: PlateInfo | None = None, **options: Any) -> np.ndarray:
    """First channel of what the network sees of these grey levels."""
    picture = levels if isinstance(levels, np.ndarray) else grey(*levels)
    out, _ = NetworkColour(decide_colour(plate or info(), **options)).apply(picture)
    return out[0, :, 0]


def srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


# The curve ------------------------------------------------------------------------------------------------


def test_apply_when_plate_is_linear_then_srgb_curve_below_the_knee() -> None:
    levels = np.array([0, 0.001, 0.01, 0.05, 0.18, 0.4, 0.6])
    assert np.abs(shown(tuple(levels), input_space="ACEScg") - srgb(levels)).max() < 1e-4


def test_apply_when_light_grows_then_the_picture_never_reaches_one_nor_turns_back() -> None:
    levels = np.geomspace(0.001, 60_000, 400)
    out = shown(tuple(levels), input_space="ACEScg").astype(np.float64)
    assert (np.diff(out) > -1e-7).all()
    assert (np.diff(out)[levels[:-1] < 100] > 0).all(), "highlights keep their differences"
    assert out.max() < 1


def test_shoulder_when_near_the_knee_then_value_and_slope_are_continuous() -> None:
    below = np.linspace(0, KNEE, 100, dtype=np.float32)
    assert np.array_equal(shoulder(below.copy()), below)
    step = 1e-3
    x = np.array([KNEE - step, KNEE, KNEE + step], np.float64)
    y = shoulder(x.copy())
    assert (y[2] - y[1]) / step == pytest.approx(1, abs=0.01)
    assert (y[1] - y[0]) / step == pytest.approx(1, abs=1e-6)
    assert shoulder(np.array([1e30], np.float32))[0] <= 1


@pytest.mark.parametrize("stops", [-2, -0.5, 1, 3])
def test_apply_when_exposure_is_given_then_light_is_doubled_a_stop(stops: float) -> None:
    levels = (0.01, 0.1, 0.3)
    there = shown(levels, input_space="ACEScg", exposure=stops)
    here = shown(tuple(x * 2**stops for x in levels), input_space="ACEScg")
    assert np.abs(there - here).max() < 1e-5


def test_apply_when_red_is_ap1_then_primaries_become_rec709() -> None:
    processor = ocio.Config.CreateFromFile("ocio://default").getProcessor("ACEScg", "lin_rec709_scene")
    colour = np.array([[[0.3, 0.2, 0.1]]], np.float32)
    expected = srgb(np.array(processor.getDefaultCPUProcessor().applyRGB([0.3, 0.2, 0.1])))
    out, _ = NetworkColour(decide_colour(info(), input_space="ACEScg")).apply(colour)
    assert np.abs(out[0, 0] - expected).max() < 1e-4


def test_apply_when_plate_is_log_then_mid_grey_lands_where_linear_does() -> None:
    coded = ocio.Config.CreateFromFile("ocio://studio-config-latest").getProcessor("lin_rec709_scene", LOGC4)
    code = coded.getDefaultCPUProcessor().applyRGB([0.18] * 3)[0]
    assert shown((code,), input_space=LOGC4)[0] == pytest.approx(0.4613, abs=2e-3)


def test_apply_when_cineon_then_white_and_black_codes_are_white_and_black() -> None:
    out = shown((95 / 1023, 685 / 1023), info("a.dpx", "uint16", {"dpx:Transfer": "Logarithmic"}))
    assert out[0] == pytest.approx(0, abs=1e-3)
    assert out[1] == pytest.approx(0.9, abs=1e-3), "linear 1, bent by the shoulder"


@pytest.mark.parametrize(("name", "hints"), [("a.png", {"oiio:ColorSpace": "srgb_rec709_scene"}), ("a.tif", {})])
def test_apply_when_picture_is_srgb_already_then_it_passes_unchanged(name: str, hints: Mapping[str, Any]) -> None:
    decision = decide_colour(info(name, "uint8", hints))
    levels = np.linspace(0, 1, 256)
    out, tamed = NetworkColour(decision).apply(grey(*levels))
    assert np.abs(out[0, :, 0] - levels).max() < 1e-6
    assert not tamed and not decision.shoulder


def test_apply_when_movie_is_rec1886_then_ends_stay_and_tones_move_little() -> None:
    out = shown((0.0, 0.5, 1.0), info("a.mov", "uint16", {"movie:transfer": "bt709"}, kind="movie"))
    assert out[0] == pytest.approx(0, abs=1e-3) and out[2] == pytest.approx(1, abs=1e-3)
    assert 0.4 < out[1] < 0.55


def test_apply_when_transform_is_none_then_values_are_only_cut() -> None:
    assert shown((-1, 0.25, 0.5, 7), transform="none").tolist() == [0, 0.25, 0.5, 1]


def test_apply_when_transform_is_view_then_the_display_of_the_config() -> None:
    out = shown((0.18, 1, 16), input_space="ACEScg", transform="view")
    assert out == pytest.approx([0.349, 0.707, 0.975], abs=5e-3)
    untoned = shown(
        (0.18, 0.5), input_space="ACEScg", transform="view", display="srgb - display", view="Un-tone-mapped"
    )
    assert untoned == pytest.approx(srgb(np.array([0.18, 0.5])), abs=2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"input_space": "ACEScg"},
        {"input_space": LOGC4, "exposure": 1.0},
        {"input_space": "ACEScg", "transform": "view", "exposure": -1.0},
        {"transform": "none"},
        {"input_space": "srgb_rec709_scene"},
    ],
)
def test_encode_when_after_to_linear_then_the_same_as_apply(options: Mapping[str, Any]) -> None:
    picture = np.random.default_rng(0).random((9, 11, 3)).astype(np.float32)
    colour = NetworkColour(decide_colour(info(), **options))
    whole, _ = colour.apply(picture)
    linear, _ = colour.to_linear(picture)
    assert np.abs(colour.encode(linear) - whole).max() < 2e-5


# Taming ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    st.sampled_from(["ACEScg", LOGC4, "srgb_rec709_scene", "Cineon log"]),
)
def test_apply_when_values_are_anything_then_finite_in_zero_to_one(picture: np.ndarray, space: str) -> None:
    before = picture.copy()
    out, tamed = NetworkColour(decide_colour(info(), input_space=space)).apply(picture)
    assert out.dtype == np.float32 and np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    assert np.array_equal(picture, before, equal_nan=True), "the caller's picture is not written to"
    finite = np.isfinite(picture)
    assert tamed == TamedPixels(
        int(np.isnan(picture).any(2).sum()),
        int(np.isinf(picture).any(2).sum()),
        int(((picture < 0) & finite).any(2).sum()),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [3, 4])
def test_tame_when_pixels_are_bad_then_only_they_change(dtype: type, channels: int) -> None:
    rgba = np.full((4, 5, channels), 0.5, dtype)
    rgb = rgba[:, :, :3]
    same, none = tame(rgb)
    assert same is rgb and not none
    rgb[0, 0] = (np.nan, np.nan, 1)
    rgb[0, 1] = (np.inf, -np.inf, 1)
    rgb[0, 2] = (-0.25, -0.0, 2)
    rgb[0, 3] = (-np.inf, 0, 0)
    clean, tamed = tame(rgb)
    assert tamed == TamedPixels(nan=1, inf=2, negative=1)
    assert clean[0, :4].tolist() == [[0, 0, 1], [65504, 0, 1], [0, 0, 2], [0, 0, 0]]
    assert (clean[1:] == 0.5).all()
    assert np.isnan(rgb[0, 0, 0]), "the plate itself is left alone"
    assert clean.dtype == dtype


def test_tame_when_pixels_are_integers_then_untouched() -> None:
    pixels = np.full((2, 2, 3), 65535, np.uint16)
    same, tamed = tame(pixels)
    assert same is pixels and not tamed
    assert str(TamedPixels(1, 2, 3) + TamedPixels(1, 0, 0)) == "2 NaN, 2 infinite, 3 negative pixels"


def test_apply_when_picture_is_not_rgb_float_then_shape_error() -> None:
    colour = NetworkColour(decide_colour(info(), input_space="ACEScg"))
    for bad in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.float32), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(ShapeError):
            colour.apply(bad)
    assert colour.apply(np.zeros((0, 4, 3), np.float32))[0].shape == (0, 4, 3)


def test_apply_when_striped_over_threads_then_the_same_pixels_every_time() -> None:
    picture = np.random.default_rng(1).random((500, 700, 3)).astype(np.float32) * 3
    colour = NetworkColour(decide_colour(info(), input_space="ACEScg"))
    whole, _ = colour.apply(picture)
    rows = np.concatenate([colour.apply(picture[i : i + 20])[0] for i in range(0, 500, 20)])
    assert np.array_equal(whole, rows)
    results: list[bool] = []

    def work() -> None:
        results.append(np.array_equal(colour.apply(picture)[0], whole))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [True] * 3
    colour.close()
    assert np.array_equal(colour.apply(picture)[0], whole)


def test_apply_when_array_is_strided_half_or_read_only_then_it_works() -> None:
    picture = np.random.default_rng(2).random((12, 10, 4)).astype(np.float16)
    picture.flags.writeable = False
    colour = NetworkColour(decide_colour(info(), input_space="ACEScg"))
    out, _ = colour.apply(picture[::2, ::-1, :3])
    again, _ = colour.apply(np.ascontiguousarray(picture[::2, ::-1, :3]).astype(np.float32))
    assert np.array_equal(out, again)


# The decision ---------------------------------------------------------------------------------------------


def chosen(plate: PlateInfo, **options: Any) -> tuple[str, str]:
    decision = decide_colour(plate, **options)
    return decision.input_space, decision.source


def test_decide_colour_when_several_speak_then_flag_then_file_then_rule_then_role() -> None:
    hints = {"chromaticities": REC709, "colorInteropID": "lin_ap1_scene"}
    assert chosen(info(hints=hints), input_space="lin_rec2020_scene") == ("Linear Rec.2020", "flag")
    assert chosen(info(hints=hints)) == ("ACEScg", "file metadata")
    assert chosen(info(hints={"chromaticities": REC709})) == ("Linear Rec.709 (sRGB)", "file metadata")
    assert chosen(info()) == ("ACES2065-1", "file rule")
    assert chosen(info("a.tif", "float")) == ("ACEScg", "role")
    assert chosen(info("a.mov", "uint8", kind="movie")) == ("Rec.1886 Rec.709 - Display", "file rule")
    assert chosen(info("a.mkv", "uint8", kind="movie")) == ("Rec.1886 Rec.709 - Display", "file rule")
    assert chosen(info("a.tif", "uint16")) == ("sRGB - Display", "file rule")


@pytest.mark.parametrize(
    ("values", "space"), [(REC709, "Linear Rec.709 (sRGB)"), (AP0, "ACES2065-1"), (AP1, "ACEScg")]
)
def test_decide_colour_when_chromaticities_are_known_then_the_space_is(values: tuple[float, ...], space: str) -> None:
    assert chosen(info(hints={"chromaticities": tuple(np.float32(v) for v in values)}))[0] == space


def test_decide_colour_when_chromaticities_are_unknown_then_the_matrix_is_built() -> None:
    wide = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.3290 + 0.004)
    decision = decide_colour(info(hints={"chromaticities": wide}))
    assert decision.primaries == pytest.approx(wide)
    assert "chromaticities" in decision.sentence
    colour = NetworkColour(decision)
    white, _ = colour.apply(grey(0.18))
    assert white[0, 0] == pytest.approx([0.4613] * 3, abs=1e-3), "white stays white"
    # Against OCIO itself, for primaries that it knows under the same white.
    near = tuple(v + (3e-3 if i == 1 else 0) for i, v in enumerate(AP1))
    mine, _ = NetworkColour(decide_colour(info(hints={"chromaticities": near}))).apply(
        np.array([[[0.2, 0.3, 0.4]]], np.float32)
    )
    theirs, _ = NetworkColour(decide_colour(info(), input_space="ACEScg")).apply(
        np.array([[[0.2, 0.3, 0.4]]], np.float32)
    )
    assert np.abs(mine - theirs).max() < 5e-3


@pytest.mark.parametrize(
    "values", [(0.0,) * 8, (0.3,) * 8, (np.nan,) * 8, (1, 0, 0, 1, 0, 0, 0.3, 0.0), (0.64, 0.33)]
)
def test_decide_colour_when_chromaticities_are_nonsense_then_they_are_passed_over(values: tuple[float, ...]) -> None:
    assert chosen(info(hints={"chromaticities": values})) == ("ACES2065-1", "file rule")


def test_decide_colour_when_exr_follows_the_builtin_rule_then_the_sentence_says_how_to_override() -> None:
    sentence = decide_colour(info()).sentence
    assert "ACES2065-1" in sentence and "file rule" in sentence
    assert "--input-space" in sentence and "$OCIO" in sentence
    assert "--input-space" not in decide_colour(info(), input_space="ACEScg").sentence


def test_decide_colour_when_camera_space_is_not_in_the_builtin_config_then_the_studio_one_and_it_is_said() -> None:
    decision = decide_colour(info(), input_space="arri_logc4")
    assert decision.input_space == LOGC4
    assert "studio-config" in decision.config and "studio-config" in decision.sentence
    assert not decision.linear and decision.shoulder


def test_decide_colour_when_name_is_wrong_then_error_offers_near_ones() -> None:
    with pytest.raises(ColourError, match="ARRI LogC3"):
        decide_colour(info(), input_space="arri logc3")
    with pytest.raises(ColourError, match="sRGB - Display"):
        decide_colour(info(), transform="view", display="srgb")
    with pytest.raises(ColourError, match="no view"):
        decide_colour(info(), transform="view", view="ACES 9")


@pytest.mark.parametrize(
    "options",
    [
        {"transform": "log"},
        {"exposure": float("nan")},
        {"exposure": 99.0},
        {"view": "Raw"},
        {"transform": "none", "exposure": 1.0},
    ],
)
def test_decide_colour_when_options_contradict_then_usage_error(options: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError):
        decide_colour(info(), **options)


def test_decide_colour_when_metadata_names_an_unknown_space_then_rules_decide_and_it_is_said() -> None:
    decision = decide_colour(info(hints={"oiio:ColorSpace": "house_gamut"}))
    assert decision.source == "file rule"
    assert "house_gamut" in decision.sentence


@pytest.mark.parametrize(
    ("hints", "space"),
    [
        ({"movie:transfer": "pq", "movie:primaries": "bt2020"}, "Rec.2100-PQ - Display"),
        ({"movie:transfer": "linear"}, "Linear Rec.709 (sRGB)"),
        ({"movie:transfer": "srgb"}, "sRGB - Display"),
        ({"movie:transfer": "bt709", "movie:primaries": "bt709"}, "Rec.1886 Rec.709 - Display"),
    ],
)
def test_decide_colour_when_movie_is_tagged_then_tags_count(hints: Mapping[str, Any], space: str) -> None:
    assert chosen(info("a.mov", "uint16", hints, kind="movie"))[0] == space


def test_as_metadata_when_written_on_mattes_then_names_are_short_and_values_text() -> None:
    for options in ({}, {"transform": "view"}, {"exposure": 1.5}):
        metadata = decide_colour(info(), **options).as_metadata()
        assert all(k.startswith("rotomem/") and len(k) <= 31 for k in metadata)
        assert all(isinstance(v, str) and v for v in metadata.values())
    assert decide_colour(info(), exposure=1.5).as_metadata()["rotomem/exposure"] == "1.5"


# Configs --------------------------------------------------------------------------------------------------


def write_config(path: Path, *, roles: Mapping[str, str], rule: str = "raw", interchange: bool = True) -> Path:
    """A small studio config that has no linear Rec.709: scene space 'house_lin' is ACES2065-1 at half the light."""
    cfg = ocio.Config()
    cfg.setVersion(2, 1)
    cfg.addColorSpace(ocio.ColorSpace(ocio.REFERENCE_SPACE_SCENE, "ap0", encoding="scene-linear"))
    half = ocio.MatrixTransform(matrix=[2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1])
    cfg.addColorSpace(
        ocio.ColorSpace(ocio.REFERENCE_SPACE_SCENE, "house_lin", encoding="scene-linear", toReference=half)
    )
    cfg.addColorSpace(ocio.ColorSpace(ocio.REFERENCE_SPACE_SCENE, "raw", isData=True))
    cfg.addColorSpace(
        ocio.ColorSpace(
            ocio.REFERENCE_SPACE_SCENE,
            "lut",
            toReference=ocio.FileTransform(src="gone.spi1d"),
        )
    )
    for role, space in roles.items():
        cfg.setRole(role, space)
    if interchange:
        cfg.setRole("aces_interchange", "ap0")
    cfg.addDisplayView("monitor", "raw view", "raw")
    rules = cfg.getFileRules()
    rules.setColorSpace(rules.getNumEntries() - 1, rule)
    cfg.setFileRules(rules)
    path.write_text(cfg.serialize())
    return path


def test_decide_colour_when_ocio_is_set_then_that_config_and_its_roles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(tmp_path / "house.ocio", roles={"scene_linear": "house_lin"})
    monkeypatch.setenv("OCIO", str(path))
    decision = decide_colour(info())
    assert (decision.input_space, decision.source, decision.config) == ("house_lin", "role", str(path))
    # No linear Rec.709 there: the way goes through aces_interchange. Half the light on disk, so one stop brighter.
    out = NetworkColour(decision).apply(grey(0.09))[0]
    assert out[0, 0, 0] == pytest.approx(0.4613, abs=2e-3)
    with pytest.raises(ColourError, match="LogC4"):
        decide_colour(info(), input_space=LOGC4)  # a studio's config is not quietly left for another


def test_decide_colour_when_config_argument_is_given_then_it_outranks_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCIO", str(tmp_path / "gone.ocio"))
    assert decide_colour(info(), config="ocio://default").config == "ocio://default"
    with pytest.raises(ColourError, match=r"gone\.ocio"):
        decide_colour(info())


def test_decide_colour_when_ocio_is_empty_then_the_builtin_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCIO", "")
    assert decide_colour(info()).config == "ocio://default"


@pytest.mark.parametrize("text", ["", "not: [yaml", "ocio_profile_version: 99\n"])
def test_decide_colour_when_config_is_broken_then_colour_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.ocio").write_text(text)
    with pytest.raises(ColourError, match=r"bad\.ocio"):
        decide_colour(info(), config=tmp_path / "bad.ocio")
    with pytest.raises(ColourError):
        decide_colour(info(), config=tmp_path)


def test_decide_colour_when_lut_is_gone_then_error_before_the_first_frame(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.ocio", roles={"scene_linear": "house_lin"})
    with pytest.raises(ColourError, match=r"gone\.spi1d"):
        decide_colour(info(), input_space="lut", config=path)


def test_decide_colour_when_config_has_no_way_to_rec709_then_error_says_what_it_lacks(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.ocio", roles={"scene_linear": "house_lin"}, interchange=False)
    try:
        decision = decide_colour(info(), config=path)
    except ColourError as e:
        assert "aces_interchange" in str(e)
    else:  # newer libraries recognise the space by itself; then it must be right
        assert NetworkColour(decision).apply(grey(0.09))[0][0, 0, 0] == pytest.approx(0.4613, abs=2e-3)


def test_decide_colour_when_nothing_says_then_error_asks_for_the_flag(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.ocio", roles={})
    with pytest.raises(ColourError, match="--input-space"):
        decide_colour(info(), config=path)


def test_decide_colour_when_the_plate_is_tagged_data_then_the_sentence_says_so() -> None:
    for hints in ({"colorInteropID": "data"}, {"oiio:ColorSpace": "Raw"}, {"oiio:ColorSpace": "raw"}):
        decision = decide_colour(info(hints=hints))
        (tag,) = hints.values()
        assert decision.input_space == decide_colour(info()).input_space
        assert f"tagged '{tag}'" in decision.sentence and "was not used" in decision.sentence
    both = decide_colour(info(hints={"colorInteropID": "data", "oiio:ColorSpace": "lin_ap1_scene"}))
    assert both.input_space == "ACEScg" and "tagged 'data'" in both.sentence
    assert "tagged" not in decide_colour(info(hints={"colorInteropID": "unknown"})).sentence
