"""Layer names: legal for every compositor, never two alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotomem.io.names import LONGEST_LAYER, legal_layer_name, legal_layer_names


@pytest.mark.parametrize(
    ("typed", "layer"),
    [
        ("hero", "hero"),
        ("car door", "car_door"),
        ("car.door/left", "car_door_left"),
        ("2nd actor", "_2nd_actor"),
        ("Rémi", "Remi"),
        ("равнина", "object"),
        ("hero-v2", "hero_v2"),
        ("  ", "object"),
        ("_private", "_private"),
    ],
)
def test_legal_layer_name_when_typed_freely_then_spelled_for_nuke(typed: str, layer: str) -> None:
    assert legal_layer_name(typed) == layer


@pytest.mark.parametrize("word", ["r", "G", "b", "A", "y", "BY", "RY", "alpha", "rgba", "Red", "depth", "left"])
def test_legal_layer_name_when_a_channel_or_view_word_then_told_apart(word: str) -> None:
    assert legal_layer_name(word) == f"{word}_matte"


def test_legal_layer_names_when_two_spell_alike_then_the_legal_one_keeps_its_name() -> None:
    names = {1: "hero 1", 2: "hero_1", 3: "Hero 1"}
    assert legal_layer_names(names) == {1: "hero_1_2", 2: "hero_1", 3: "Hero_1_3"}


def test_legal_layer_names_when_a_view_has_the_name_then_numbered() -> None:
    assert legal_layer_names({1: "cam"}, taken=["CAM"]) == {1: "cam_2"}


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(1, 50), st.text(max_size=50), max_size=12))
def test_legal_layer_names_when_anything_is_typed_then_legal_short_and_unique(names: dict[int, str]) -> None:
    layers = legal_layer_names(names)
    assert list(layers) == list(names)
    assert len({layer.lower() for layer in layers.values()}) == len(names)
    for layer in layers.values():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", layer)
        assert len(layer) <= LONGEST_LAYER + len("_matte")
        assert layer.lower() not in {"r", "g", "b", "a", "y"}
