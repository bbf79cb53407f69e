"""The configurations among the examples say nothing that the processor does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from neatlogs_processor.cli import build_parser
from neatlogs_processor.settings import CONFIG_VARIABLE, ENV_PREFIX, check_together, entries, load

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATIONS = REPOSITORY / "examples" / "configurations"
FILES = sorted(CONFIGURATIONS.glob("*.yaml"))

FLAGS = {flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")}
VARIABLES = {entry.variable for entry in entries()} | {CONFIG_VARIABLE}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGURATIONS / name).read_text(encoding="utf-8"))
    return content


def commands(name: str) -> Iterator[dict[str, str]]:
    """The flags of each `neatlogs-processor ...` line in a configuration's comments."""
    text = (CONFIGURATIONS / name).read_text(encoding="utf-8")
    for line in re.findall(r"^#\s+neatlogs-processor (--.*)$", text, re.MULTILINE):
        words = line.split()
        yield dict(zip(words[::2], words[1::2], strict=True))


def settings_of(flags: dict[str, str]) -> Any:
    loaded = load({flag.removeprefix("--").replace("-", "_"): value for flag, value in flags.items()}, {})
    check_together(loaded.settings)
    return loaded.settings


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_flags_and_variables_exist(path: Path) -> None:
    """Every flag and every variable of the processor that a configuration names is one that it has."""
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= FLAGS
    assert set(re.findall(rf"{ENV_PREFIX}\w+", text)) <= VARIABLES


def test_the_collector_in_front_sends_where_the_processor_listens() -> None:
    """The address that the Collector exports to is the one that the command beside it listens on."""
    (flags,) = commands("collector-in-front.yaml")
    settings = settings_of(flags)
    configuration = read("collector-in-front.yaml")
    assert configuration["exporters"]["otlp_grpc"]["endpoint"] == str(settings.grpc_listen)
    receiving = configuration["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert receiving != str(settings.grpc_listen), "two programs cannot listen on one address"


def test_the_collector_behind_listens_where_the_processor_sends() -> None:
    """The address that the Collector receives on is the upstream of the command beside it."""
    (flags,) = commands("collector-behind.yaml")
    settings = settings_of(flags)
    receiving = read("collector-behind.yaml")["receivers"]["otlp"]["protocols"]["grpc"]
    assert receiving["endpoint"] == flags["--upstream-endpoint"]
    assert receiving["max_recv_msg_size_mib"] * 2**20 == settings.max_message_size
    assert receiving["endpoint"] != str(settings.grpc_listen), "two programs cannot listen on one address"


@pytest.mark.parametrize("name", ["collector-in-front.yaml", "collector-behind.yaml"])
def test_collector_pipelines_name_what_is_there(name: str) -> None:
    """Each pipeline of a Collector uses components that its configuration defines, and each is used."""
    configuration = read(name)
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in configuration["service"]["pipelines"].values():
        for kind, names in used.items():
            names.update(pipeline[kind])
    assert used == {kind: set(configuration[kind]) for kind in used}
