"""The recipes of docs/recipes.md, taken apart: programs, commands, configurations."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

RECIPES = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", RECIPES, re.MULTILINE | re.DOTALL))
"""Every program by the name in its first line."""

REQUEST_TO_DJANGO = """
    import sys, types
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path
    from opentelemetry import trace
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    import neatlogs_otel as neatlogs
    import shop_settings

    site = sys.modules["site_urls"] = types.ModuleType("site_urls")


    def chat(request):
        with trace.get_tracer("shop").start_as_current_span("look up"):
            return HttpResponse("42")

    site.urlpatterns = [path("chat", chat)]
    settings.configure(
        MIDDLEWARE=shop_settings.MIDDLEWARE,
        NEATLOGS_GET_END_USER=shop_settings.NEATLOGS_GET_END_USER,
        SECRET_KEY="of the tests",
        ROOT_URLCONF="site_urls",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    neatlogs.init(workflow_name="shop")
    DjangoInstrumentor().instrument()
    django.setup()
    from django.core.management import call_command
    from django.contrib.auth.models import User
    from django.test import Client
    call_command("migrate", verbosity=0)
    client = Client()
    client.force_login(User.objects.create_user("ada", id=812))
    assert client.get("/chat").content == b"42"
"""
"""Sets the Django recipe up in one program, and asks it for one page as somebody who is signed in."""

REQUEST_TO_FASTAPI = """
    from fastapi.testclient import TestClient
    import shop
    assert TestClient(shop.app).get("/chat", headers={"x-user": "u_812"}).json() == {"answer": 42}
"""
"""Asks the FastAPI recipe for one page."""


def program(source: str) -> tuple[str, str, str]:
    """Return the command of a program that does with a recipe what its user would do."""
    return (sys.executable, "-c", textwrap.dedent(source))


def _section(heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ [A-Z]|\Z)", RECIPES, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no recipe {heading!r}"
    return found[1]


def commands(heading: str) -> list[list[str]]:
    """Return the flags of each command that starts a processor in a recipe."""
    blocks = re.findall(r"^```sh\n(.*?)^```", _section(heading), re.MULTILINE | re.DOTALL)
    return [shlex.split(block.replace("\\\n", " "))[1:] for block in blocks if block.startswith("neatlogs-processor ")]


def yaml_of(heading: str) -> dict[str, Any]:
    """Return the configuration in a recipe."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", _section(heading), re.MULTILINE | re.DOTALL)
    content: dict[str, Any] = yaml.safe_load(block)
    return content


def run_recipe(
    directory: Path, *command: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder that holds the recipes' programs, with no telemetry settings but the given ones."""
    for name, content in FILES.items():
        (directory / name).write_text(content, encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "NEATLOGS_", "PY"))}
    quiet = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "PYTHONPATH": str(directory)}
    return subprocess.run(
        command,
        cwd=directory,
        env={**clean, **quiet, **(env or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
