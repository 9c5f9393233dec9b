"""`rotomem models`: what there is, what is in a file of weights, and published checkpoints as safetensors."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotomem.cli.progress import size_text
from rotomem.cli.track import parse_positive
from rotomem.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from rotomem.models.interface import MemoryPlan, VOSModel

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

_TOLD = 20
"""Keys that are told one by one before the rest is counted."""

_WIDTH = 180
"""Columns of the list where nobody's terminal says how many there are: a line a model."""


def add_parser(subparsers: SubParsers) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser("models", help="list models, look into weights, import published checkpoints")
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    listed = what.add_parser("list", help="models by name: size, weights, licence")
    listed.add_argument("--json", action="store_true", help="print it as JSON")

    info = what.add_parser("info", help="architecture, memory, size and origin of a model or a file of weights")
    info.add_argument("model", metavar="NAME|FILE")
    info.add_argument("--json", action="store_true", help="print it as JSON")

    measured = what.add_parser(
        "measure",
        help="parameters, seconds a frame and memory of every model, with random weights",
        description="Track a few frames with each model and tell what it costs. MEMORY is what its memory fills "
        "after 50 and 500 frames, counted; PEAK is the most the process held while it tracked these few frames, "
        "measured, weights and libraries included. A long shot's peak is PEAK and what MEMORY grows by.",
    )
    measured.add_argument("models", nargs="*", metavar="MODEL", help="as the table calls them (default: all)")
    measured.add_argument(
        "--objects", type=_counts, default=(1, 3, 10), metavar="N,N", help="numbers of objects (default: 1,3,10)"
    )
    measured.add_argument("--size", type=parse_positive, default=480, help="shorter side (default: 480)")
    measured.add_argument("--frames", type=parse_positive, default=5, help="frames to track (default: 5)")
    measured.add_argument("--json", action="store_true", help="print it as JSON, a line a run")

    taken = what.add_parser(
        "import",
        help="a published checkpoint as safetensors, with licence and origin noted",
        description="Recognise a checkpoint of XMem, STCN, STM, AOT, AOTv2, AOST or STReMN by its keys, say key by "
        "key what is missing or unexpected, and write it as safetensors. Nothing in FILE is executed. The same FILE "
        "gives the same bytes.",
    )
    taken.add_argument("file", metavar="FILE", type=Path)
    taken.add_argument("-o", "--out", metavar="OUT.safetensors", type=Path, required=True)
    taken.add_argument("--half", action="store_true", help="float16 numbers: half the size, rounded")
    taken.add_argument("--licence", metavar="TEXT", help="note this licence of the weights, where you know it")
    taken.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments say; exit code."""
    return {"list": _list, "info": _info, "measure": _measure, "import": _import}[args.what](args)


def _list(args: argparse.Namespace) -> int:
    from rotomem.models.registry import REGISTRY, outline

    models = [
        {
            "name": name,
            "parameters": _parameters(outline(name)),
            "weights": "bundled" if entry.weights else "bring your own",
            "licence": entry.licence,
            "summary": entry.summary,
        }
        for name, entry in REGISTRY.items()
    ]
    if args.json:
        print(json.dumps(models, indent=2, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("model", "parameters", "weights", "licence", "what it is"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for model in models:
        table.add_row(*(f"{v / 1e6:.1f} M" if isinstance(v, int) else str(v) for v in model.values()))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH, highlight=False).print(table)
    return 0


@dataclass(frozen=True)
class _Found:
    """What a name or file turned out to be.

    name      of the registry's entry whose network it is
    network   the model, its tensors without numbers
    file      with its weights; None where rotomem has none
    tensors   of the file as the network takes them, float32
    facts     what the file says of itself
    remarks   what its user had better know
    """

    name: str
    network: VOSModel
    file: Path | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def _find(name_or_path: str) -> _Found:
    """Raises UsageError where there is no such thing, CheckpointError telling what does not fit."""
    from rotomem.models.registry import REGISTRY, outline

    if entry := REGISTRY.get(name_or_path):
        if entry.weights is None:
            return _Found(name_or_path, outline(name_or_path))
        return _recognise(entry.weights, name_or_path)
    if not Path(name_or_path).is_file():
        raise UsageError(f"{name_or_path!r} is neither a model nor a file", remedy="models: " + ", ".join(REGISTRY))
    return _recognise(Path(name_or_path))


def _recognise(path: Path, name: str | None = None) -> _Found:
    """A file of weights, with every key in its place. Raises CheckpointError after telling which are not."""
    from rotomem.models import registry

    read = registry.read_state_dict(path)
    tensors = registry.as_loaded(read)
    name = name or registry.recognise(tensors)
    guess = name or registry.nearest(tensors)
    if guess is None:
        raise CheckpointError(
            "the checkpoint is of no architecture rotomem knows",
            remedy="known architectures: " + ", ".join(registry.REGISTRY),
            path=path,
        )
    entry = registry.REGISTRY[guess]
    try:
        network = registry.outline(guess, tensors if name else None)
    except CheckpointError:  # a key that tells a width is not there
        network = registry.outline(guess)
    if misfits := registry.misfits(network, tensors):
        for what, keys in misfits.items():
            print(f"{what} ({len(keys)}):", file=sys.stderr)
            for key in keys[:_TOLD]:
                print(f"  {key}", file=sys.stderr)
            if len(keys) > _TOLD:
                print(f"  and {len(keys) - _TOLD} more", file=sys.stderr)
        counts = ", ".join(f"{len(keys)} {what}" for what, keys in misfits.items())
        raise CheckpointError(
            f"the checkpoint is nearest to {entry.title}, but does not fit: of its keys {counts}",
            remedy="take the file as it was published, or as it was saved for inference",
            path=path,
        )
    single = "it is of stage 0 and knows one object; a channel of zeros stands for the others"
    remarks = (entry.remark(_config(network)), single if registry.single_object(read) else "")
    return _Found(guess, network, path, tensors, registry.read_facts(path), tuple(filter(None, remarks)))


def _info(args: argparse.Namespace) -> int:
    from rotomem.models.registry import REGISTRY, hash_weights

    found = _find(args.model)
    entry = REGISTRY[found.name]
    plan = found.network.plan
    told: dict[str, Any] = {
        "model": found.name,
        "architecture": entry.title,
        "summary": entry.summary,
        "file": str(found.file) if found.file else None,
        "parameters": _parameters(found.network),
        "tensors": len(found.tensors or found.network.state_dict()),
        "licence": found.facts.get("licence") or _licence(found),
        "hash": hash_weights(found.tensors) if found.tensors else None,
        "config": asdict(_config(found.network)),
        "plan": asdict(plan),
        "metadata": {k: v for k, v in sorted(found.facts.items()) if k not in ("format", "licence")},
        "remarks": found.remarks,
    }
    if args.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    lines = {
        **{k: v for k, v in told.items() if k not in ("plan", "metadata", "remarks")},
        "file": told["file"] or "none comes with rotomem: bring your own weights",
        "parameters": f"{told['parameters']:,} ({told['parameters'] / 1e6:.1f} M)",
        "config": " ".join(f"{k}={_short(v)}" for k, v in told["config"].items()),
        **_describe(plan),
    }
    rows = [
        *((name, value) for name, value in lines.items() if value is not None),
        *(("metadata", f"{name}: {value}") for name, value in told["metadata"].items()),
        *(("note", remark) for remark in found.remarks),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    return 0


def _describe(plan: MemoryPlan) -> dict[str, str]:
    """A memory plan in words."""
    layers = f"{plan.layers} layers, " if plan.layers > 1 else ""
    reads = "all elements" if plan.top_k is None else f"the {plan.top_k} most similar elements"
    every = "given frames only" if plan.memory_every is None else f"every frame in {plan.memory_every}"
    if plan.memory_every == 1:
        every = "every frame"
    if plan.slots:
        every += f", {plan.slots} at a time"
    if plan.latest_frame or plan.short_term:
        every += "; the previous frame too"
    keys = "shared by all objects"
    if plan.keys_per_object:
        keys = "a pass its own" if plan.objects_per_pass else "an object its own"
    return {
        "memory": f"{layers}{plan.similarity}, reads {reads}",
        "keys, values": f"{plan.key_dim} ({keys}), {plan.value_dim} channels",
        "memorises": every,
        "consolidates": "old frames into long-term prototypes" if plan.consolidates else "no",
        "sensory": f"{plan.sensory_dim} channels an object" if plan.sensory_dim else "none",
        "feedback": plan.feedback,
        "objects per pass": str(plan.objects_per_pass or "any number, a value map each"),
        "stride": f"{plan.stride} pixels",
    }


def _counts(text: str) -> tuple[int, ...]:
    return tuple(parse_positive(part) for part in text.split(","))


def _measure(args: argparse.Namespace) -> int:
    """Every run in a fresh process, so that its peak is its own; lines appear as they are measured."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from rotomem.cli.heap import keep_freed_memory
    from rotomem.evaluation.cost import CASES, STEPS, measure

    known = {case.title: case for case in CASES}
    if unknown := set(args.models) - known.keys():
        raise UsageError(f"no model called {', '.join(sorted(unknown))}", remedy="known: " + "; ".join(known))
    size = (args.size, round(args.size * 16 / 9))
    if not args.json:
        memory = [f"memory {step}" for step in STEPS]
        print(_row("model", "objects", "parameters", "s/frame", *memory, "peak"))
    with ProcessPoolExecutor(1, get_context("spawn"), keep_freed_memory, max_tasks_per_child=1) as pool:
        for title in args.models or known:
            for objects in args.objects:
                cost = pool.submit(measure, known[title], objects, size=size, frames=args.frames).result()
                if args.json:
                    print(json.dumps(cost), flush=True)
                    continue
                sizes = (*cost["memory_bytes"].values(), cost["peak_bytes"])
                told = (f"{cost['parameters'] / 1e6:.1f} M", f"{cost['seconds']:.3g}", *map(size_text, sizes))
                print(_row(title, str(objects), *told), flush=True)
    return 0


def _row(title: str, *cells: str) -> str:
    return f"{title:14}" + "".join(f"{cell:>13}" for cell in cells)


def _import(args: argparse.Namespace) -> int:
    from rotomem.io.weights import write_weights
    from rotomem.models.registry import REGISTRY

    out: Path = args.out
    if out.suffix != ".safetensors":
        raise UsageError(f"{out.name!r} is no name for safetensors", remedy="let it end in .safetensors")
    if not args.file.is_file():
        raise UsageError("there is no such file", remedy="give the path of a checkpoint", path=args.file)
    if out.exists() and out.samefile(args.file):
        raise UsageError("the file cannot replace itself", remedy="choose another name", path=out)
    if out.exists() and not args.overwrite:
        raise UsageError("the file exists already", remedy="use --overwrite, or choose another name", path=out)
    found = _recognise(args.file)
    size = write_weights(_numbers(found, half=args.half), _origin(found, args), out)
    entry = REGISTRY[found.name]
    print(f"{args.file} is {entry.title}: {_parameters(found.network) / 1e6:.1f} M parameters")
    for remark in found.remarks:
        print(f"note: {remark}")
    print(f"licence: {args.licence or found.facts.get('licence') or _licence(found)}")
    print(f"wrote {out} ({size_text(size)}, {'float16' if args.half else 'float32'})")
    return 0


def _numbers(found: _Found, *, half: bool) -> dict[str, Tensor]:
    """The tensors to write. Raises CheckpointError where one does not fit float16."""
    import torch

    # Cloned: some checkpoints hold one tensor under two names, which safetensors refuses.
    tensors = {k: v.clone(memory_format=torch.contiguous_format) for k, v in found.tensors.items()}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        for key, value in tensors.items():
            if not torch.isfinite(value).all():
                raise CheckpointError(f"{key} is not finite in float16", remedy="leave out --half", path=found.file)
    return tensors


def _origin(found: _Found, args: argparse.Namespace) -> dict[str, str]:
    """Metadata of the file to write; of what was imported before, the first source stays."""
    file: Path = args.file
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    source = {
        "source": file.name,
        "source_sha256": digest,
        "source_date": datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat(),
    }
    return {
        "model": found.name,
        **({} if "source_sha256" in found.facts else source),
        **found.facts,
        "format": "pt",
        "licence": args.licence or found.facts.get("licence") or _licence(found),
    }


def _licence(found: _Found) -> str:
    """What is known of a licence that the file itself does not tell."""
    from rotomem.models.registry import REGISTRY

    entry = REGISTRY[found.name]
    if found.file is None or found.file == entry.weights:
        return entry.licence
    return f"the file tells none; {entry.licence}"


def _parameters(network: VOSModel) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _config(network: VOSModel) -> Any:
    """The dataclass that configures a network of the registry."""
    return network.config


def _short(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
