"""Compares an exported model with what Miao itself computes.

    python -m miao.export.parity DIRECTORY                   in the installed transformers
    python -m miao.export.parity DIRECTORY --server URL      in a running vLLM server
    python -m miao.export.parity DIRECTORY --write FILE      only writes what Miao computes
    python -m miao.export.parity DIRECTORY --reference FILE  compares with what was written

With `--reference` nothing of Miao computes: that works in the environment of another program.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from miao.errors import MiaoError
from miao.export.origin import MARK
from miao.export.parity.compare import print_findings, require_passed
from miao.export.parity.in_transformers import check_with_transformers, transformers_version
from miao.export.parity.reference import Reference, reference_of
from miao.language import Parser, in_language


def main(words: Sequence[str] | None = None) -> int:
    """The command line above; 2 where something differs."""
    parser = Parser(
        prog="python -m miao.export.parity",
        description="Compares an exported model with what Miao computes.",
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--reference", type=Path, help="what --write wrote (default: compute it)")
    parser.add_argument("--write", type=Path, help="write what Miao computes to this file")
    parser.add_argument("--server", help="compare in a vLLM server: http://localhost:8000")
    options = parser.parse_args(words)
    try:
        load = options.reference is None
        reference = reference_of(options.directory) if load else Reference.load(options.reference)
        if options.write:
            reference.save(options.write)
            return 0
        program = f"transformers {transformers_version()}"
        if options.server:
            from miao.export.parity.server import check_with_server

            program = f"the server {options.server}"
            findings = check_with_server(options.server, reference)
        else:
            own = (options.directory / MARK).exists()
            findings = check_with_transformers(options.directory, reference, own)
        print_findings(f"{options.directory} in {program}", findings)
        require_passed(findings, options.directory, program)
    except MiaoError as error:
        print(f"miao: {in_language(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
