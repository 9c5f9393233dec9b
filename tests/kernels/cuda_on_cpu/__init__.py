"""The CUDA kernels run on a CPU, for machines without a device: their logic, not their speed.

g++ compiles the very `*_cuda.cu` files and the extension's bindings for devices; the headers of this folder stand in
the place of CUDA's, and of kernels/common/ptx.cuh. A CUDA thread is a fibre (fibres.h). What it finds: wrong indices,
wrong fragments, forgotten barriers and waits, writes behind shared memory, results that hang on the threads' order.
What it cannot: speed, register use, the memory model of a real device, rounding inside a tensor core.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]


@functools.cache
def load() -> ModuleType:
    """The emulated module, with the `*_cuda` functions of rotomem._kernels; compiled when its sources changed.

    Skips the test where there is no compiler or pybind11.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler to build the emulation of CUDA with")
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed: it binds the emulation of CUDA")
    kernels = sorted(p for p in ROOT.glob("kernels/*/*_cuda.cu") if p.parent.name != "common")
    kernels.append(HERE / "mistakes.cu")
    bindings = sorted(ROOT.glob("ext/bind_*_cuda.cpp"))
    headers = [p for folder in ("kernels", "ext", HERE) for p in sorted((ROOT / folder).rglob("*.*h"))]
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in (*kernels, *bindings, *headers, HERE / "module.cpp"):
        digest.update(source.read_bytes())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    built = ROOT / "build" / f"cuda_on_cpu-{digest.hexdigest()[:16]}" / f"cuda_on_cpu{suffix}"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
            _build(compiler, pybind11.get_include(), kernels, bindings, Path(scratch))
            os.replace(Path(scratch) / "module.so", built)
    spec = importlib.util.spec_from_file_location("cuda_on_cpu", built)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def device_array(array: np.ndarray) -> tuple[int, tuple[int, ...], tuple[int, ...], str]:
    """A NumPy array as the bindings for devices are told of memory: address, shape, strides in numbers, type."""
    return array.ctypes.data, array.shape, tuple(s // array.itemsize for s in array.strides), array.dtype.name


def aligned(count: int) -> np.ndarray:
    """Bytes as a device's allocator gives them, holding anything; aligned to 16, which is what kernels may expect."""
    room = np.full(count + 32, 0xCD, np.uint8)
    return room[16 - room.ctypes.data % 16 :][:count]


def _build(compiler: str, pybind11: str, kernels: list[Path], bindings: list[Path], scratch: Path) -> None:
    """Compile everything to scratch/module.so, two files at a time; the bindings in one, for pybind11's sake."""
    binding = scratch / "binding.cpp"
    binding.write_text("".join(f'#include "{p}"\n' for p in (HERE / "module.cpp", *bindings)))
    includes = [f"-I{p}" for p in (HERE, ROOT / "kernels", ROOT / "ext", pybind11, sysconfig.get_path("include"))]
    commands = [
        [compiler, *FLAGS, *includes, "-x", "c++", "-c", str(source), "-o", str(scratch / f"{source.stem}.o")]
        for source in (binding, *kernels)
    ]
    running: list[subprocess.Popen[bytes]] = []
    for command in commands:
        if len(running) == 2:
            _finish(running.pop(0))
        running.append(subprocess.Popen(command))
    for process in running:
        _finish(process)
    objects = [command[-1] for command in commands]
    subprocess.run([compiler, "-shared", *objects, "-o", str(scratch / "module.so")], check=True)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise RuntimeError(f"the emulation of CUDA does not compile: {' '.join(map(str, process.args))}")
