from __future__ import annotations

import math

import pytest

from rotomem.bench.everything import refuse_wrong
from rotomem.bench.measure import Line
from rotomem.errors import BackendError


def line(error_ratio: float | None) -> Line:
    return Line("read", "a case", "native", "a machine", 2, "1", error_ratio=error_ratio)


@pytest.mark.parametrize("error_ratio", [4.5, math.inf, math.nan])
def test_refuse_wrong_when_a_kernel_is_off_or_makes_no_numbers_then_error_names_it(error_ratio: float) -> None:
    refuse_wrong([line(None), line(0.5), line(4.0)])
    with pytest.raises(BackendError, match=r"native is wrong.*case=a case"):
        refuse_wrong([line(0.5), line(error_ratio)])
