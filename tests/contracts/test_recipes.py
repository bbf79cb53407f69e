"""Every recipe of docs/recipes.md is run, as it stands there, against a real OTLP receiver."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.otlp_sink import OtlpSink, attributes

RECIPES = (Path(__file__).resolve().parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", RECIPES, re.MULTILINE | re.DOTALL))

ID, METADATA, SESSION = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.session.id"


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as receiver:
        yield receiver


def run(tmp_path: Path, sink: OtlpSink, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command in a folder that holds the recipes' files; return what it printed."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "NEATLOGS_", "PY"))}
    others = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint, "OTEL_METRICS_EXPORTER": "none"}
    environment = {**clean, **others, "OTEL_LOGS_EXPORTER": "none", "PYTHONPATH": str(tmp_path), **(env or {})}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neatlogs_otel" not in done.stderr, done.stderr
    return done.stdout


def program(source: str) -> tuple[str, str, str]:
    """The command of a program that does with a recipe what its user would do."""
    return (sys.executable, "-c", textwrap.dedent(source))


def root(sink: OtlpSink, count: int = 1) -> dict[str, object]:
    """What the one root carries that arrived."""
    (found,) = [span for span in sink.wait_for_spans(count) if not any(span.parent_span_id)]
    return attributes(found)


def test_fastapi(tmp_path: Path, sink: OtlpSink) -> None:
    """The server span of a request carries the end user and metadata that get_end_user has found."""
    visit = """
    from fastapi.testclient import TestClient
    import shop
    assert TestClient(shop.app).get("/chat", headers={"x-user": "u_812"}).json() == {"answer": 42}
    """
    run(tmp_path, sink, *program(visit))
    spans = sink.wait_for_spans(1)
    (found,) = [span for span in spans if not any(span.parent_span_id)]
    assert found.name == "GET /chat"
    assert attributes(found)[ID] == "u_812"
    assert attributes(found)[METADATA] == '{"plan":"pro"}'


def test_django(tmp_path: Path, sink: OtlpSink) -> None:
    """The request of somebody who is signed in carries their primary key, and what the setting's function adds."""
    visit = """
    import sys, types
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    import neatlogs_otel as neatlogs
    import shop_settings

    site = sys.modules["site_urls"] = types.ModuleType("site_urls")
    site.urlpatterns = [path("chat", lambda request: HttpResponse("42"))]
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
    run(tmp_path, sink, *program(visit))
    found = root(sink)
    assert found[ID] == "812"
    assert found[METADATA] == '{"staff":false}'


def test_celery(tmp_path: Path, sink: OtlpSink) -> None:
    """A task's trace carries the end user of the code that published it."""
    visit = """
    from celery.contrib.testing.worker import start_worker
    import neatlogs_otel as neatlogs
    import shop_tasks

    neatlogs.init(workflow_name="shop")
    with start_worker(shop_tasks.app, perform_ping_check=False, pool="solo"):
        with neatlogs.identify(end_user_id="u_812"):
            result = shop_tasks.summarise.delay("First. Second.")
        assert result.get(timeout=60) == "First"
    """
    run(tmp_path, sink, *program(visit))
    assert root(sink)[ID] == "u_812"


def test_zero_code(tmp_path: Path, sink: OtlpSink) -> None:
    """With the recipe's own variables, a program without a line of ours exports its root with end user and session."""
    variables = dict(re.findall(r"^\$ export (NEATLOGS_\w+)='?(.*?)'?$", RECIPES, re.MULTILINE))
    assert len(variables) == 3
    # The other instrumentations of the tests' environment have no part in this, and take their time.
    variables["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "fastapi,flask,django,celery,httpx,openai,wsgi,asgi"
    instrument = Path(sys.executable).parent / "opentelemetry-instrument"
    assert run(tmp_path, sink, instrument, sys.executable, "nightly.py", env=variables) == "done\n"
    found = root(sink)
    assert (found[ID], found[METADATA], found[SESSION]) == ("u_812", '{"plan":"pro"}', "s_1")


def test_a_program_for_one_person(tmp_path: Path, sink: OtlpSink) -> None:
    """The end user of init() is on the root, with a session of the process."""
    assert run(tmp_path, sink, sys.executable, "notes.py") == "Water the plants\n"
    found = root(sink)
    assert found[ID] == "u_812"
    assert found[SESSION]


def test_a_test_that_finds_who_forgot(tmp_path: Path, sink: OtlpSink) -> None:
    """The recipe's test passes under the flag that the recipe names."""
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--require-end-users", "test_shop.py")
    assert "1 passed" in run(tmp_path, sink, *command)


def test_every_program_of_the_recipes_is_run() -> None:
    """The file has no Python block that the tests above do not know."""
    assert len(FILES) == len(re.findall("^```python$", RECIPES, re.MULTILINE))
    source = Path(__file__).read_text(encoding="utf-8")
    for name in FILES:
        assert name.removesuffix(".py") in source or "shop_users" in name
