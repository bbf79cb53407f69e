"""Every recipe of docs/recipes.md is run, as it stands there, against a real OTLP receiver."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.collector_process import COLLECTOR, collector_process
from support.otlp_sink import OtlpSink, attributes
from support.processor_process import ProcessorProcess, processor_process
from support.recipes import (
    FILES,
    RECIPES,
    REQUEST_TO_DJANGO,
    REQUEST_TO_FASTAPI,
    commands,
    program,
    run_recipe,
    yaml_of,
)

ID, METADATA, SESSION = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.session.id"


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as receiver:
        yield receiver


def run(tmp_path: Path, endpoint: str, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command in a folder that holds the recipes' files; return what it printed."""
    done = run_recipe(tmp_path, *command, env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **(env or {})})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neatlogs_otel" not in done.stderr, done.stderr
    return done.stdout


@contextmanager
def started(flags: list[str], upstream: str, *more: str) -> Iterator[ProcessorProcess]:
    """Run the processor with a recipe's flags, and an upstream of the test's."""
    # Of a flag that is there twice the last one counts; the upstream here speaks OTLP/gRPC.
    with processor_process(*flags, "--upstream-endpoint", upstream, *more) as processor:
        yield processor


def root(sink: OtlpSink, count: int = 1) -> dict[str, object]:
    """What the one root carries that arrived."""
    (found,) = [span for span in sink.wait_for_spans(count) if not any(span.parent_span_id)]
    return attributes(found)


def test_fastapi(tmp_path: Path, sink: OtlpSink) -> None:
    """The server span of a request carries the end user and metadata that get_end_user has found."""
    run(tmp_path, sink.grpc_endpoint, *program(REQUEST_TO_FASTAPI))
    spans = sink.wait_for_spans(1)
    (found,) = [span for span in spans if not any(span.parent_span_id)]
    assert found.name == "GET /chat"
    assert attributes(found)[ID] == "u_812"
    assert attributes(found)[METADATA] == '{"plan":"pro"}'


def test_fastapi_and_phoenix(tmp_path: Path, sink: OtlpSink) -> None:
    """The processor adds the keys by which Phoenix shows users; `make interop` asks a real one."""
    (flags,) = commands("FastAPI and Phoenix")
    with started(flags, sink.grpc_endpoint) as processor:
        run(tmp_path, processor.endpoint, *program(REQUEST_TO_FASTAPI))
    found = root(sink)
    assert (found["user.id"], json.loads(str(found["metadata"]))) == ("u_812", {"plan": "pro"})


def test_django(tmp_path: Path, sink: OtlpSink) -> None:
    """The request of somebody who is signed in carries their primary key, and what the setting's function adds."""
    run(tmp_path, sink.grpc_endpoint, *program(REQUEST_TO_DJANGO))
    found = root(sink, 2)
    assert found[ID] == "812"
    assert found[METADATA] == '{"staff":false}'


@pytest.mark.needs_go
@pytest.mark.skipif(not COLLECTOR.exists(), reason="the Collector was not built (make bench-collector)")
def test_django_a_collector_and_what_is_behind_it(tmp_path: Path, sink: OtlpSink) -> None:
    """Through processor and Collector as the recipe configures them, the root says who it was, in both keys."""
    config = yaml_of("Django, a Collector, and Jaeger or Tempo")
    config["exporters"]["otlp_grpc"]["endpoint"] = sink.grpc_endpoint.removeprefix("http://")
    first, _ = commands("Django, a Collector, and Jaeger or Tempo")
    with collector_process(config, tmp_path) as (address, _), started(first, f"http://{address}") as processor:
        run(tmp_path, processor.endpoint, *program(REQUEST_TO_DJANGO))
        found = root(sink, 2)
    assert (found[ID], found["user.id"]) == ("812", "812")


def test_every_span_of_django_inherits(tmp_path: Path, sink: OtlpSink) -> None:
    """With the recipe's second command, the span below the request says who it was too."""
    _, second = commands("Django, a Collector, and Jaeger or Tempo")
    with started(second, sink.grpc_endpoint, "--queue-dir", str(tmp_path / "queue")) as processor:
        run(tmp_path, processor.endpoint, *program(REQUEST_TO_DJANGO))
        spans = sink.wait_for_spans(2)
    assert {span.name: attributes(span).get(ID) for span in spans} == {"GET chat": "812", "look up": "812"}


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
    run(tmp_path, sink.grpc_endpoint, *program(visit))
    assert root(sink)[ID] == "u_812"


def test_zero_code(tmp_path: Path, sink: OtlpSink) -> None:
    """With the recipe's own variables, a program without a line of ours exports its root with end user and session."""
    variables = dict(re.findall(r"^\$ export (NEATLOGS_\w+)='?(.*?)'?$", RECIPES, re.MULTILINE))
    assert len(variables) == 3
    # The other instrumentations of the tests' environment have no part in this, and take their time.
    variables["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "fastapi,flask,django,celery,httpx,openai,wsgi,asgi"
    instrument = Path(sys.executable).parent / "opentelemetry-instrument"
    assert run(tmp_path, sink.grpc_endpoint, instrument, sys.executable, "nightly.py", env=variables) == "done\n"
    found = root(sink)
    assert (found[ID], found[METADATA], found[SESSION]) == ("u_812", '{"plan":"pro"}', "s_1")


def test_a_program_for_one_person(tmp_path: Path, sink: OtlpSink) -> None:
    """The end user of init() is on the root, with a session of the process."""
    assert run(tmp_path, sink.grpc_endpoint, sys.executable, "notes.py") == "Water the plants\n"
    found = root(sink)
    assert found[ID] == "u_812"
    assert found[SESSION]


def test_a_test_that_finds_who_forgot(tmp_path: Path, sink: OtlpSink) -> None:
    """The recipe's test passes under the flag that the recipe names."""
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--require-end-users", "test_shop.py")
    assert "1 passed" in run(tmp_path, sink.grpc_endpoint, *command)


def test_every_program_of_the_recipes_is_run() -> None:
    """The file has no Python block that neither the tests above nor `make interop` knows."""
    assert len(FILES) == len(re.findall("^```python$", RECIPES, re.MULTILINE))
    tests = Path(__file__).resolve().parents[1]
    runners = (Path(__file__), tests / "support" / "recipes.py", tests / "interop" / "recipes.py")
    known = "".join(path.read_text(encoding="utf-8") for path in runners)
    for name in FILES:
        assert name.removesuffix(".py") in known or "shop_users" in name
