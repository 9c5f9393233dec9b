"""Timings as text: a line as people read it while it is measured, and the tables of kernels/README.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rotomem.errors import InputError, UsageError
from rotomem.io.atomic import whole_file

BEGIN, END = "<!-- timings: begin -->", "<!-- timings: end -->"

_TITLES = {
    "read": "Reading the memory (top 30, anisotropic L2, CK 64, CV 512 unless said; usage counted)",
    "consolidate": "Making 128 prototypes (five frames of candidates, CK 64, CV 512)",
    "attention": "Softmax (STM: CK 128, CV 512, keys per object; AOT: 8 heads of 32; local: a window of 15x15)",
    "shot": "Whole frames (picture in, mattes out)",
}
_PEERS = ("dense", "dense, lean", "faiss, top-k alone", "torch fused", "float32 torch, dense")


def text_line(line: Mapping[str, Any]) -> str:
    """One measurement for a terminal."""
    head = f"{line['bench']:12}{line['case']:36} {line['backend']:22}"
    if "skipped" in line:
        return f"{head} skipped: {line['skipped']}"
    cells = [
        _seconds(line.get("median_s")).rjust(9),
        f"least {_seconds(line['least_s'])}" if "least_s" in line else "",
        f"+-{50 * line['spread']:.0f}%" if "spread" in line else "",
        f"others {100 * line['others']:.0f}%" if line.get("others", 0) > 0.02 else "",
        f"{line['ratio']:.1f}x" if "ratio" in line else "",
        _bytes(line.get("peak_bytes")),
        f"{line['gflops']:.0f} GFLOP/s" if "gflops" in line else "",
        f"{100 * line['share']:.0f}% of {line['peak']}" if "share" in line else "",
        f"error {line['error']:.1e} ({line['error_ratio']:.2f} of torch's)" if "error_ratio" in line else "",
        f"{line['fps']:.1f} fps" if "fps" in line else "",
        f"{100 * line['differing']:.3f}% differ" if "differing" in line else "",
        f"late/early {line['late']:.3f}" if "late" in line else "",
        " ".join(f"{k} {100 * v:.0f}%" for k, v in line.get("stages", {}).items()),
    ]
    return f"{head} " + "  ".join(c for c in cells if c)


def read_lines(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The lines of files that `--json` wrote; of the same measurement the last one counts, of a peak the greatest.

    Shares are of that peak: what a machine reached once, though it was disturbed the next time.

    Raises InputError naming the file and the line.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in paths:
        try:
            rows = Path(path).read_text().splitlines()
        except OSError as error:
            raise InputError(f"cannot read the timings: {error.strerror}", path=path) from None
        for number, row in enumerate(rows, 1):
            try:
                line = json.loads(row)
                key = tuple(line[k] for k in ("bench", "case", "backend", "device", "threads"))
            except (ValueError, KeyError, TypeError):
                raise InputError("this is no line of timings", path=path, line=number) from None
            if line["bench"] == "machine" and key in found and _reached(found[key]) > _reached(line):
                continue
            found[key] = line
    lines = list(found.values())
    peaks = {
        (one["device"], one["threads"], one["case"]): _reached(one) for one in lines if one["bench"] == "machine"
    }
    for one in lines:
        peak = peaks.get((one["device"], one["threads"], one.get("peak")))
        if "share" in one and peak:
            one["share"] = one["gflops"] / peak
    return lines


def _reached(machine: Mapping[str, Any]) -> float:
    """What a line of a machine's peak says: operations, or bytes copied, a second."""
    return float(machine["gflops"] if "gflops" in machine else machine["facts"]["bytes_per_s"])


def render(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: for every machine its peaks, then a table for every bench it ran."""
    parts = []
    for device, threads in dict.fromkeys((line["device"], line["threads"]) for line in lines):
        own = [line for line in lines if (line["device"], line["threads"]) == (device, threads)]
        parts.append(_machine(device, threads, own))
        for bench in _TITLES:
            if of_bench := [line for line in own if line["bench"] == bench]:
                parts.append(f"**{_TITLES[bench]}**\n\n" + (_shots if bench == "shot" else _kernels)(of_bench))
    return "\n\n".join(parts)


def put_into(path: str | Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Replace what stands between the markers of a text file by the tables. Raises UsageError without markers."""
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"cannot read the text: {error.strerror}", path=path) from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"the text has no lines {BEGIN} and {END}", remedy="add them where tables belong", path=path)
    with whole_file(path, what="text") as part:
        part.write_text(f"{before}{BEGIN}\n{render(lines)}\n{END}{after}")


def _machine(device: str, threads: int, lines: Sequence[Mapping[str, Any]]) -> str:
    peaks = {line["case"]: line for line in lines if line["bench"] == "machine"}
    told = [f"{name} products {p['gflops']:,.0f} GFLOP/s" for name, p in peaks.items() if "gflops" in p]
    if copy := peaks.get("copy"):
        told.append(f"copies {copy['facts']['bytes_per_s'] / 1e9:.1f} GB/s")
    text = f"{device}, {threads} thread{'s' if threads != 1 else ''}"
    return f"{text}; measured peaks: {', '.join(told)}." if told else f"{text}."


def _kernels(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row a case: seconds of every backend with ratios to the first, then more of the fastest of ours."""
    names = list(dict.fromkeys(line["backend"] for line in lines))
    rows = [["case", "N", *names, "GFLOP/s", "of peak", "memory", "error"]]
    for case in dict.fromkeys(line["case"] for line in lines):
        by_name = {line["backend"]: line for line in lines if line["case"] == case}
        facts = next(iter(by_name.values())).get("facts") or {}
        ours = [line for line in by_name.values() if line["backend"] not in _PEERS and "median_s" in line]
        best = min(ours, key=lambda line: line["median_s"], default={})
        error = best.get("error_ratio")
        rows.append(
            [
                case,
                f"{facts.get('elements', 0):,}",
                *(_cell(by_name.get(name), first=name == names[0]) for name in names),
                f"{best['gflops']:,.0f}" if best else "",
                f"{100 * best['share']:.0f} % {best['peak']}" if best else "",
                _bytes(best.get("peak_bytes")),
                "" if error is None else f"{error:.2f}",
            ]
        )
    return _markdown(rows)


def _shots(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [["shot", "float32 torch", "rotomem", "ratio", "first frame", "memory", "differ by 1/255", "time goes to"]]
    for case in dict.fromkeys(line["case"] for line in lines):
        by_name = {line["backend"]: line for line in lines if line["case"] == case}
        plain, ours = by_name.get(_PEERS[-1]), by_name.get("rotomem", {})
        stages = sorted(ours.get("stages", {}).items(), key=lambda item: -item[1])
        notes = [f"{name.replace('_', ' ')} {100 * share:.0f} %" for name, share in stages if share > 0.03]
        if "late" in ours:
            notes.append(f"last frames / early frames: {ours['late']:.3f}")
        rows.append(
            [
                case,
                _fps(plain),
                _fps(ours or None),
                f"{ours['ratio']:.1f}" if "ratio" in ours else "",
                _seconds(ours.get("first_s")),
                _bytes(ours.get("peak_bytes")),
                f"{100 * ours['differing']:.3f} %" if "differing" in ours else "",
                ", ".join(notes),
            ]
        )
    return _markdown(rows)


def _cell(line: Mapping[str, Any] | None, *, first: bool) -> str:
    if line is None:
        return ""
    if "skipped" in line:
        return str(line["skipped"]).partition(",")[0].partition(":")[0]
    ratio = "" if first or "ratio" not in line else f" ({line['ratio']:.1f}x)"
    return _seconds(line["median_s"]) + ratio


def _fps(line: Mapping[str, Any] | None) -> str:
    if line is None:
        return ""
    return f"{line['fps']:.2f} fps" if "fps" in line else str(line.get("skipped", "")).partition(",")[0]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.{1 if value >= 0.01 else 2}f} ms"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
