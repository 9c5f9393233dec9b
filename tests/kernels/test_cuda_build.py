"""What is in a build with CUDA: every architecture's machine code, PTX for later ones, and no need of a driver."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

kernels = pytest.importorskip("rotomem._kernels", reason="the native kernels are not built")
EXT = Path(__file__).resolve().parents[2] / "ext"
built_with_cuda = pytest.mark.skipif(
    not hasattr(kernels, "copy_cuda"), reason="the kernels were built without CUDA (no nvcc, or ROTOMEM_CUDA=OFF)"
)

FATBIN = struct.pack("<I", 0xBA55ED50)  # before every .cu file's code; headers as cuda's fatbinary.h lays them out
PTX, MACHINE_CODE = 1, 2


def device_code(module: Path) -> Iterator[set[tuple[int, int]]]:
    """(kind, architecture) of what every compiled .cu file brings: (PTX or MACHINE_CODE, 90 for sm_90)."""
    content = module.read_bytes()
    for at in (match.start() for match in re.finditer(re.escape(FATBIN), content)):
        version, header, size = struct.unpack_from("<HHQ", content, at + 4)
        if (version, header) != (1, 16):
            continue  # the magic number by chance
        entry, end, held = at + header, at + header + size, set()
        while entry < end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", content, entry)
            held.add((kind, struct.unpack_from("<I", content, entry + 28)[0]))
            entry += entry_header + entry_size
        yield held


@built_with_cuda
def test_build_when_cuda_is_in_then_every_file_has_every_architecture():
    if sys.platform != "linux":
        pytest.skip("reads ELF")
    if os.environ.get("CUDAARCHS"):
        pytest.skip("CUDAARCHS chose the architectures")
    lists = re.findall(r"set\(CMAKE_CUDA_ARCHITECTURES ([0-9][^$)]+)\)", (EXT / "CMakeLists.txt").read_text())
    numbers = [{int(one.removesuffix("-real")) for one in names.split()} for names in lists]  # older nvcc, newer nvcc
    assert numbers == [{80, 86, 89, 90}, {80, 86, 89, 90, 100, 120}]
    expected = [{*((MACHINE_CODE, one) for one in some), (PTX, max(some))} for some in numbers]
    files = list(device_code(Path(kernels.__file__)))
    assert len(files) >= len(list(EXT.parent.glob("kernels/*/*_cuda.cu")))
    assert files[0] in expected
    assert all(held == files[0] for held in files)


@built_with_cuda
def test_build_when_cuda_is_in_then_nothing_of_cuda_is_linked():
    if sys.platform != "linux" or shutil.which("ldd") is None:
        pytest.skip("reads ELF")
    linked = subprocess.run(["ldd", kernels.__file__], capture_output=True, text=True).stdout
    assert "libc.so" in linked
    assert "libcuda" not in linked


def test_status_when_no_device_can_be_used_then_says_why():
    devices, trouble = kernels.cuda_status()
    if not hasattr(kernels, "copy_cuda"):
        assert (devices, trouble) == ([], "the kernels were built without CUDA")
    elif shutil.which("nvidia-smi") is None:
        assert devices == []
        assert "driver" in trouble
    else:
        assert devices or trouble
