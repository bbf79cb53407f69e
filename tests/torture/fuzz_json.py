"""Fuzzes the reader of OTLP/JSON, differential against Python's own JSON reader and the official messages.

    python tests/torture/fuzz_json.py                      # guided by coverage (atheris), until interrupted
    python tests/torture/fuzz_json.py --random --seed 7 --executions 1000000

Both start from the conformance vectors in JSON and the committed corpus (`tests/data/corpus/json`), and mutate trees
and text. What has to hold for any text is `support.json_oracle.check_json`. A divergence ends the run with a traceback
and the input in a file; `fuzz_json.py FILE` repeats it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzzing import Target, main  # found beside this script

from support.corpus import json_corpus
from support.json_mutations import mutate_json


def load() -> Callable[[bytes], str]:
    """Import the reader, and return what checks it."""
    from support.json_oracle import check_any_json

    return check_any_json


if __name__ == "__main__":
    sys.exit(main(Target(load, "neatlogs_processor.core", json_corpus, mutate_json, 8192), __doc__))
