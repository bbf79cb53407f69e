"""Fuzzes the core, differential against the official protobuf reader.

    python tests/torture/fuzz_core.py                      # guided by coverage (atheris), until interrupted
    python tests/torture/fuzz_core.py --executions 1000000
    python tests/torture/fuzz_core.py --random --seed 7    # the same mutations without guidance: several times faster

Both start from the conformance vectors and the committed corpus (`tests/data/corpus/core`), and mutate along OTLP's own
fields. What has to hold for any bytes is `support.differential.check_any_bytes`; an execution checks one input under
both policies. A divergence ends the run with a traceback and the input in a file; `fuzz_core.py FILE` repeats it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzzing import Target, main  # found beside this script

from support.corpus import core_corpus
from support.wire_mutations import mutate


def load() -> Callable[[bytes], str]:
    """Import the core, and return what checks it."""
    from support.differential import check_both

    return check_both


if __name__ == "__main__":
    sys.exit(main(Target(load, "neatlogs_processor.core", core_corpus, mutate, 4096), __doc__))
