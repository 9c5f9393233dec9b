"""What models cost: bytes that are counted are those a session fills."""

from __future__ import annotations

import pytest

from engine.toy import MODELS, labels, picture
from rotomem.cli import main
from rotomem.engine.session import Session
from rotomem.evaluation.cost import CASES, filled_bytes, measure
from rotomem.models.interface import Memorised


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bound", ({}, {"memory_gib": 1e-4, "long_term": False, "mem_every": 1}))
def test_filled_bytes_when_counted_then_a_session_fills_as_many(name: str, bound: dict[str, float]) -> None:
    model = MODELS[name]()
    depth = model.depths[0] if model.depths else None
    left: list[Memorised] = []
    encode_mask = model.encode_mask

    def listening(*args: object, **options: object) -> Memorised:
        left.append(encode_mask(*args, **options))  # type: ignore[arg-type]
        return left[-1]

    model.encode_mask = listening  # type: ignore[method-assign]
    session = Session(model, size=None, depth=depth, **bound)  # type: ignore[arg-type]
    filled = {}
    for t in range(14):
        session.step(picture(t), labels((1, 4, 4, 16), (2, 24, 30, 20), (3, 4, 40, 12)) if t == 0 else None)
        filled[t] = session.memory.filled_bytes
    assert filled_bytes(model, session, left[0].elements, (0, 4, 13)) == {t: filled[t] for t in (0, 4, 13)}


def test_measure_when_a_model_is_run_then_every_figure_is_there() -> None:
    case = next(case for case in CASES if case.title == "xmem-s")
    cost = measure(case, 2, size=(48, 64), frames=2, steps=(5, 10))
    assert cost["parameters"] == 6_506_100 and cost["objects"] == 2
    assert 0 < cost["seconds"] < 60 and cost["peak_bytes"] > 4 * cost["parameters"]
    assert list(cost["memory_bytes"]) == [5, 10] and 0 < cost["memory_bytes"][5] < cost["memory_bytes"][10]


def test_measure_command_when_a_model_is_not_known_then_the_known_ones_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "measure", "XMen"]) == 2
    assert "AOT-L" in capsys.readouterr().err
