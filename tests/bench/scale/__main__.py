"""`make scale`: the tables of docs/scale.md, from its inputs; with `--write` into the document."""

from __future__ import annotations

import argparse

from .document import DOCUMENT, tables, with_tables


def main() -> None:
    """Print the tables, or write them."""
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    if parser.parse_args().write:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, text in tables().items():
        print(f"\n{name}\n\n{text}")


if __name__ == "__main__":
    main()
