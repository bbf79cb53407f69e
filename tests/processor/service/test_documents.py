"""README, example configuration and settings say the same."""

from __future__ import annotations

import re
from pathlib import Path

from neatlogs_processor.cli import build_parser
from neatlogs_processor.settings import check_together, entries, load
from support import settings_table

FOLDER = Path(__file__).parents[3] / "processor"


def test_the_readme_s_table_is_the_settings() -> None:
    """A setting cannot be added, changed or removed without the README saying so."""
    assert settings_table.current() == settings_table.table(), "run: cd tests && python -m support.settings_table"


def test_the_example_configuration_can_be_used() -> None:
    """The example file loads as it is and starts a processor that forwards."""
    settings = load({}, {}, config=FOLDER / "config.example.toml").settings
    check_together(settings)
    assert settings.upstream_endpoint is not None


def test_the_example_configuration_shows_every_setting_with_its_default() -> None:
    """What is commented out in the example is the default; nothing is left out."""
    text = (FOLDER / "config.example.toml").read_text(encoding="utf-8")
    shown = dict(re.findall(r'^#? ?([a-z_]+) = "?(.*?)"?$', text, re.MULTILINE))
    active = set(re.findall(r"^([a-z_]+) = ", text, re.MULTILINE))
    assert shown.keys() == {entry.name for entry in entries()}
    for entry in entries():
        default = entry.show(entry.default)
        if default and entry.name not in active:
            assert shown[entry.name] == default


def test_every_setting_has_a_flag() -> None:
    """The command line knows each setting by the name that the documents use."""
    usage = build_parser().format_help()
    assert [entry.flag for entry in entries() if f"  {entry.flag}" not in usage] == []


def test_the_dockerfile_uses_only_what_exists() -> None:
    """Flags, variables and commands in the Dockerfile are the program's."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    variables = set(re.findall(r"NEATLOGS_PROCESSOR_[A-Z_]+", text))
    assert variables <= {entry.variable for entry in entries()}
    assert 'ENTRYPOINT ["neatlogs-processor"]' in text
    assert '"neatlogs-processor", "health"' in text
    assert re.search(r"^USER (?!root|0)", text, re.MULTILINE)
