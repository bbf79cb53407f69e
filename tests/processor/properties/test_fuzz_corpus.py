"""What fuzzing starts from and what it once found, replayed; and a short fuzzing of both kinds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from support.corpus import core_corpus, json_corpus
from support.differential import ENTRY, STRICT, check_any_bytes, check_both
from support.json_mutations import mutate_json
from support.json_oracle import check_any_json
from support.wire_mutations import mutate

TORTURE = Path(__file__).parents[2] / "torture"
CORE = core_corpus()
JSON = json_corpus()


@pytest.mark.parametrize("name", CORE)
def test_every_seed_agrees_with_the_official_reader(name: str) -> None:
    """A request is enforced as the oracle would, under both policies, or refused; what once diverged does not again."""
    check_both(CORE[name])


@pytest.mark.parametrize("name", JSON)
def test_every_json_seed_is_read_as_the_oracle_reads_it(name: str) -> None:
    """A JSON request of any signal holds what Python's JSON reader and the official messages say that it holds."""
    assert check_any_json(JSON[name]) == "read"


def test_mutations_of_the_seeds_agree_with_the_official_reader() -> None:
    """Twenty thousand mutated requests, always the same ones, give what the oracle gives, or a refusal."""
    chance = Random(0)  # noqa: S311  # the same in each run
    outcomes = {
        check_any_bytes(mutate(seed, chance), policy)
        for seed in CORE.values()
        for policy in (STRICT, ENTRY)
        for _ in range(10_000 // len(CORE))
    }
    assert outcomes == {"enforced", "unchanged", "refused"}


def test_mutations_of_json_are_read_as_the_oracle_reads_them() -> None:
    """Ten thousand mutated JSON requests, always the same ones, are read alike, or refused alike."""
    chance = Random(0)  # noqa: S311  # the same in each run
    outcomes = {check_any_json(mutate_json(seed, chance)) for seed in JSON.values() for _ in range(10_000 // len(JSON))}
    assert outcomes >= {"read", "refused"}


@pytest.mark.parametrize("fuzzer", ["fuzz_core.py", "fuzz_json.py"])
def test_fuzzing_guided_by_coverage_finds_nothing(tmp_path: Path, fuzzer: str) -> None:
    """Three thousand executions that a fuzzer steers by the core's coverage show no divergence."""
    pytest.importorskip("atheris", reason="atheris is built for few platforms; the random mutations run everywhere")
    done = subprocess.run(
        [sys.executable, str(TORTURE / fuzzer), "--executions", "3000", "--findings", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done 3000 runs" in done.stderr
    assert not list(tmp_path.iterdir())
