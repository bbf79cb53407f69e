"""Fuzzes the core, differential against the official protobuf reader.

    python tests/torture/fuzz_core.py                      # coverage-guided (atheris), until interrupted
    python tests/torture/fuzz_core.py --executions 1000000
    python tests/torture/fuzz_core.py --random --seed 7    # the same mutations without guidance: several times faster

Both start from the conformance vectors and the committed corpus (`tests/data/corpus/core`), and mutate along OTLP's own
fields. What has to hold for any bytes is `support.differential.check_any_bytes`; an execution checks one input, guided
under both policies, at random under one of them. A divergence ends the run with a traceback and the input in a file;
`python tests/torture/fuzz_core.py FILE` repeats it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

TESTS = Path(__file__).resolve().parents[1]
# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(TESTS))

MAX_SIZE = 4096
_REPORT_SECONDS = 60.0


def main() -> int:
    """Fuzz as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path, help="run these inputs once, and nothing else")
    parser.add_argument("--executions", type=int, default=0, help="end after so many (default: never)")
    parser.add_argument("--random", action="store_true", help="without guidance by coverage")
    parser.add_argument("--seed", type=int, default=1, help="where chance begins (default: %(default)s)")
    parser.add_argument("--findings", type=Path, default=Path(), help="folder for inputs that diverge")
    parser.add_argument("--learn", type=Path, help="folder where guided runs keep what widened their coverage")
    arguments = parser.parse_args()
    if arguments.inputs:
        from support.differential import check_both

        for path in arguments.inputs:
            check_both(path.read_bytes())
        print(f"{len(arguments.inputs)} inputs, 0 divergences")
        return 0
    if arguments.random:
        return _fuzz_at_random(arguments.executions, arguments.seed, arguments.findings)
    return _fuzz_by_coverage(arguments)


def _fuzz_at_random(executions: int, seed: int, findings: Path) -> int:
    """Mutate the corpus, and what came of it, without guidance."""
    from support.corpus import core_corpus
    from support.differential import ENTRY, STRICT, Tally, check_any_bytes
    from support.wire_mutations import mutate

    chance = Random(seed)  # noqa: S311  # to be repeated, not secret
    pool = list(core_corpus().values())
    seeds = len(pool)
    tally = Tally()
    began = reported = time.monotonic()
    while not executions or tally.executions < executions:
        body = mutate(pool[chance.randrange(len(pool))], chance)
        if len(body) > MAX_SIZE:
            continue
        try:
            outcome = check_any_bytes(body, ENTRY if chance.random() < 0.3 else STRICT)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                path = findings / f"divergence-{seed}-{tally.executions}"
                path.write_bytes(body)
                print(f"DIVERGENCE after {tally.executions} executions; the input is {path}", flush=True)
            raise
        tally.add(outcome)
        # Some mutations become starting points themselves, so that edits pile up; the seeds always stay.
        if outcome != "refused" and chance.random() < 0.1:
            if len(pool) < 20 * seeds:
                pool.append(body)
            else:
                pool[chance.randrange(seeds, len(pool))] = body
        now = time.monotonic()
        if now - reported >= _REPORT_SECONDS:
            reported = now
            print(f"{tally}, {tally.executions / (now - began):.0f}/s", flush=True)
    print(f"{tally}, 0 divergences, {time.monotonic() - began:.0f} s, seed {seed}", flush=True)
    return 0


def _fuzz_by_coverage(arguments: argparse.Namespace) -> int:
    import atheris

    with atheris.instrument_imports(include=["neatlogs_processor.core"]):
        from support.differential import check_both
    from support.corpus import core_corpus
    from support.wire_mutations import mutate

    def once(data: bytes) -> None:
        check_both(data)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        body = mutate(data, Random(seed))  # noqa: S311  # the fuzzer says which chance
        return body if len(body) <= max_size else data

    # libFuzzer reads its seeds from folders, and writes what it learns into the first.
    scratch = Path(tempfile.mkdtemp(prefix="neatlogs-fuzz-"))
    learned = arguments.learn or scratch / "learned"
    seeds = scratch / "seeds"
    for folder in (learned, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for name, body in core_corpus().items():
        (seeds / name).write_bytes(body)
    flags = [
        f"-max_len={MAX_SIZE}",
        f"-seed={arguments.seed}",
        f"-artifact_prefix={arguments.findings}/",
        "-print_final_stats=1",
        "-timeout=10",
        *([f"-runs={arguments.executions}"] if arguments.executions else []),
    ]
    atheris.Setup([sys.argv[0], *flags, str(learned), str(seeds)], once, custom_mutator=mutator)
    # Does not return: the fuzzer ends the process.
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
