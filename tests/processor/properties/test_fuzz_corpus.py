"""What fuzzing starts from and what it once found, replayed; and a short fuzzing of both kinds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from support.corpus import core_corpus
from support.differential import ENTRY, STRICT, check_any_bytes, check_both
from support.wire_mutations import mutate

FUZZER = Path(__file__).parents[2] / "torture" / "fuzz_core.py"
CORPUS = core_corpus()


@pytest.mark.parametrize("name", CORPUS)
def test_every_seed_agrees_with_the_official_reader(name: str) -> None:
    """A seed is enforced as the oracle would, under both policies, or refused; what once diverged does not again."""
    check_both(CORPUS[name])


def test_mutations_of_the_seeds_agree_with_the_official_reader() -> None:
    """Twenty thousand mutated requests, always the same ones, give what the oracle gives, or a refusal."""
    chance = Random(0)  # noqa: S311  # the same in each run
    seeds = list(CORPUS.values())
    outcomes = {
        check_any_bytes(mutate(seed, chance), policy)
        for seed in seeds
        for policy in (STRICT, ENTRY)
        for _ in range(10_000 // len(seeds))
    }
    assert outcomes == {"enforced", "unchanged", "refused"}


def test_fuzzing_guided_by_coverage_finds_nothing(tmp_path: Path) -> None:
    """Three thousand executions that a fuzzer steers by the core's coverage show no divergence."""
    pytest.importorskip("atheris", reason="atheris is built for few platforms; the random mutations run everywhere")
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--executions", "3000", "--findings", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done 3000 runs" in done.stderr
    assert not list(tmp_path.iterdir())
