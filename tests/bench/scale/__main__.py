"""`make scale`: the tables of docs/scale.md, from its inputs.

With `--write` the measured inputs are taken from docs/benchmarks.md anew, and the tables go into the document.
"""

from __future__ import annotations

import argparse

from .document import BENCHMARKS, DOCUMENT, tables, with_measurements, with_tables
from .model import INPUTS_FILE


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="measured inputs from docs/benchmarks.md, tables into docs/scale.md"
    )
    if parser.parse_args().write:
        inputs = with_measurements(INPUTS_FILE.read_text(encoding="utf-8"), BENCHMARKS.read_text(encoding="utf-8"))
        INPUTS_FILE.write_text(inputs, encoding="utf-8")
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, text in tables().items():
        print(f"\n{name}\n\n{text}")


if __name__ == "__main__":
    main()
