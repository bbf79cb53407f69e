"""How the fuzzers of this folder run: guided by coverage, at random, or over given inputs."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

_REPORT_SECONDS = 60.0
_LEARNED_AT_MOST = 2_000


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        load: Imports it; returns its check, which fails on a divergence and else says in a word what happened.
        instrumented: The modules whose coverage guides.
        seeds: Where to begin, by name.
        mutate: Returns an input that differs a little from another.
        max_size: The largest input, in bytes.
        fruitless: The words after which an input is no new beginning.
    """

    load: Callable[[], Callable[[bytes], str]]
    instrumented: str
    seeds: Callable[[], dict[str, bytes]]
    mutate: Callable[[bytes, Random], bytes]
    max_size: int
    fruitless: frozenset[str] = frozenset({"refused"})


def main(target: Target, about: str | None) -> int:
    """Fuzz as the command line says."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path, help="run these inputs once, and nothing else")
    parser.add_argument("--executions", type=int, default=0, help="end after so many (default: never)")
    parser.add_argument("--random", action="store_true", help="without guidance by coverage")
    parser.add_argument("--seed", type=int, default=1, help="where chance begins (default: %(default)s)")
    parser.add_argument("--findings", type=Path, default=Path(), help="folder for inputs that diverge")
    parser.add_argument("--learn", type=Path, help="folder where guided runs keep what widened their coverage")
    arguments = parser.parse_args()
    if arguments.inputs:
        check = target.load()
        for path in arguments.inputs:
            check(path.read_bytes())
        print(f"{len(arguments.inputs)} inputs, 0 divergences")
        return 0
    arguments.findings.mkdir(parents=True, exist_ok=True)
    if arguments.random:
        return _at_random(target, arguments)
    return _by_coverage(target, arguments)


def _at_random(target: Target, arguments: argparse.Namespace) -> int:
    check = target.load()
    chance = Random(arguments.seed)  # noqa: S311  # to be repeated, not secret
    pool = list(target.seeds().values())
    seeds = len(pool)
    outcomes: Counter[str] = Counter()
    executions = 0
    began = reported = time.monotonic()
    while not arguments.executions or executions < arguments.executions:
        body = target.mutate(pool[chance.randrange(len(pool))], chance)
        if len(body) > target.max_size:
            continue
        try:
            outcome = check(body)
        except Exception:
            path = arguments.findings / f"divergence-{arguments.seed}-{executions}"
            path.write_bytes(body)
            print(f"DIVERGENCE after {executions} executions; the input is {path}", flush=True)
            raise
        outcomes[outcome] += 1
        executions += 1
        # Some mutations become starting points themselves, so that edits pile up; the seeds always stay.
        if outcome not in target.fruitless and chance.random() < 0.1:
            if len(pool) < seeds + _LEARNED_AT_MOST:
                pool.append(body)
            else:
                pool[chance.randrange(seeds, len(pool))] = body
        now = time.monotonic()
        if now - reported >= _REPORT_SECONDS:
            reported = now
            print(f"{_told(executions, outcomes)}, {executions / (now - began):.0f}/s", flush=True)
    seconds = time.monotonic() - began
    print(f"{_told(executions, outcomes)}, 0 divergences, {seconds:.0f} s, seed {arguments.seed}", flush=True)
    return 0


def _told(executions: int, outcomes: Counter[str]) -> str:
    return f"{executions} executions ({', '.join(f'{count} {word}' for word, count in sorted(outcomes.items()))})"


def _by_coverage(target: Target, arguments: argparse.Namespace) -> int:
    import atheris

    with atheris.instrument_imports(include=[target.instrumented]):
        check = target.load()

    def once(data: bytes) -> None:
        check(data)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        body = target.mutate(data, Random(seed))  # noqa: S311  # the fuzzer says which chance
        return body if len(body) <= max_size else data

    # libFuzzer reads its seeds from folders, and writes what it learns into the first.
    scratch = Path(tempfile.mkdtemp(prefix="neatlogs-fuzz-"))
    learned = arguments.learn or scratch / "learned"
    seeds = scratch / "seeds"
    for folder in (learned, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for name, body in target.seeds().items():
        (seeds / name).write_bytes(body)
    flags = [
        f"-max_len={target.max_size}",
        f"-seed={arguments.seed}",
        f"-artifact_prefix={arguments.findings}/",
        "-print_final_stats=1",
        "-timeout=10",
        # Rewriting the corpus for every shorter input with the same coverage takes longer than it saves.
        "-reduce_inputs=0",
        *([f"-runs={arguments.executions}"] if arguments.executions else []),
    ]
    atheris.Setup([sys.argv[0], *flags, str(learned), str(seeds)], once, custom_mutator=mutator)
    # Does not return: the fuzzer ends the process.
    atheris.Fuzz()
    return 0
