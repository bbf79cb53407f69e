"""Damage a queue at every offset: it opens each time, and holds nothing that was not acknowledged.

Every byte of the log's tail, of the file's first page and of the journal is turned over, they are cut off at every
offset, and a sample of all other offsets is treated the same.

    python tests/torture/queue_damage.py
"""

from __future__ import annotations

import argparse
import collections
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from neatlogs_processor.queue.directory import database_in, journal_in
from support.queue_damage import Specimen, flipped, specimen, surviving, truncated

TAIL_FRAMES = 3
FRAME_BYTES = 24 + 16 * 1024
FIRST_PAGE = 16 * 1024


def torture(sound: Specimen, folder: Path, step: int) -> bool:
    """Damage copies, print the figures and say whether all is well."""
    well = True
    database = database_in(sound.folder).name
    for name in (database, f"{database}-wal", journal_in(sound.folder)[0].name):
        size = (sound.folder / name).stat().st_size
        if name == database:
            exact = range(FIRST_PAGE)
        else:
            exact = range(max(0, size - TAIL_FRAMES * FRAME_BYTES), size)
        chance = random.Random(name)  # noqa: S311  # the same in every run
        chosen = sorted({*exact[::step], *chance.sample(range(size), min(size, 2_000 // step))})
        for damage in (flipped, truncated):
            begun = time.monotonic()
            forged, kept = _one_by_one(sound, folder, name, damage, chosen)
            well = well and not forged
            print(
                f"{name} {damage.__name__} at {len(chosen)} offsets in {time.monotonic() - begun:.0f} s:"
                f" {len(forged)} forged {forged[:5]}, requests that went on, of {len(sound.bodies)}:"
                f" {min(kept)} at least, {sum(n * c for n, c in kept.items()) / kept.total():.1f} on average",
                flush=True,
            )
    return well


def _one_by_one(
    sound: Specimen, folder: Path, name: str, damage: Callable[[Path, int], None], chosen: list[int]
) -> tuple[list[int], collections.Counter[int]]:
    forged: list[int] = []
    kept: collections.Counter[int] = collections.Counter()
    copy = folder / "copy"
    for offset in chosen:
        shutil.copytree(sound.folder, copy, ignore=shutil.ignore_patterns("reserve"))
        damage(copy / name, offset)
        found = surviving(copy)
        if not found <= sound.bodies.items():
            forged.append(offset)
        kept[len(found)] += 1
        shutil.rmtree(copy)
    return forged, kept


def main() -> int:
    """Run as the arguments say; 0 where nothing was forged."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--step", type=int, default=1, help="Take only every so manieth offset.")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    # Thousands of small databases: memory spares the disk, and durability is not what is tested.
    memory = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        well = torture(specimen(Path(folder), requests=24), Path(folder), arguments.step)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
