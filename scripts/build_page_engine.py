"""Builds the engine of pages: `miao/engine/native.c` as WebAssembly.

    python scripts/build_page_engine.py           writes miao/page/engine.wasm

Needs clang and its linker for WebAssembly (Debian: apt install clang lld). Run it after a change of
`native.c` or `kernels.h`; a test says so when it was forgotten.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "miao" / "engine" / name for name in ("native.c", "kernels.h")]
MODULE = ROOT / "miao" / "page" / "engine.wasm"
FLAGS = [
    *("--target=wasm32", "-O3", "-msimd128", "-mbulk-memory", "-fno-math-errno"),
    *("-ffreestanding", "-nostdlib", "-Wall", "-Werror", "-Wno-unknown-pragmas"),
    *("-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536", "-Wl,--stack-first"),
    *(f"-Wl,--export={name}" for name in ("miao_read", "miao_work_size", "__heap_base")),
]


def source_mark() -> bytes:
    """A section of the module that says what it was built from; browsers pass over it."""
    text = b"".join(source.read_bytes() for source in SOURCES) + " ".join(FLAGS).encode()
    body = b"\x06source" + hashlib.sha256(text).digest()
    return bytes([0, len(body)]) + body


def build(module: Path) -> None:
    command = ["clang", *FLAGS, str(SOURCES[0]), "-o", str(module)]
    subprocess.run(command, check=True)
    module.write_bytes(module.read_bytes() + source_mark())
    module.chmod(0o644)
    print(f"{module}: {module.stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=MODULE)
    build(parser.parse_args().out)
