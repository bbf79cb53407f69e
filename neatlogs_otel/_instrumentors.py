"""Finding and activating the one instrumentor of a client's library.

Instrumentors announce themselves under the entry point group `opentelemetry_instrumentor`, by convention under the
name of the library that they instrument.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from neatlogs_otel._warnings import warn_once

_GROUP = "opentelemetry_instrumentor"

# Packages of which everything is made; that a class derives from them says nothing about its library.
_FOUNDATIONS = frozenset(
    {"builtins", "abc", "typing", "typing_extensions", "enum", "collections", "functools", "types"}
)
_FRAMEWORKS = frozenset({"pydantic", "httpx", "httpx2", "requests", "asyncio", "contextlib", "wrapt"})

# What to install for a library; for any other library we cannot name a package, and say nothing.
_INSTALLABLE = {
    "openai": "openinference-instrumentation-openai",
    "anthropic": "openinference-instrumentation-anthropic",
    "mistralai": "openinference-instrumentation-mistralai",
    "groq": "openinference-instrumentation-groq",
    "cohere": "openinference-instrumentation-cohere",
    "litellm": "openinference-instrumentation-litellm",
    "ollama": "openinference-instrumentation-ollama",
    "together": "openinference-instrumentation-together",
    "google_genai": "openinference-instrumentation-google-genai",
    "vertexai": "openinference-instrumentation-vertexai",
    "botocore": "openinference-instrumentation-bedrock",
    "instructor": "openinference-instrumentation-instructor",
    "dspy": "openinference-instrumentation-dspy",
    "langchain_core": "openinference-instrumentation-langchain",
    "llama_index": "openinference-instrumentation-llama-index",
    "smolagents": "openinference-instrumentation-smolagents",
}

# Entry points that are not named after the package whose classes a client has.
_OTHER_NAMES = {"botocore": ("bedrock",), "langchain_core": ("langchain",)}

_LOCK_SECONDS = 10.0
_lock = threading.RLock()
_seen: set[frozenset[str]] = set()


def libraries_of(target: Any) -> frozenset[str]:
    """The top-level packages that an object's class and its bases come from, or in which a function is defined."""
    return frozenset(module.partition(".")[0] for module in _modules(target)) - _FOUNDATIONS - _FRAMEWORKS


def activate_instrumentor(target: Any) -> None:
    """See to it that at most one instrumentor is active for the library of a client. Never raises.

    One that is active already wins. Then OpenInference's, then OpenTelemetry's, then any other's. One that cannot be
    imported or activated costs a warning, and the next is tried; none installed costs a warning that says what to
    install.
    """
    try:
        names = frozenset(_names(_modules(target)))
        if not names or names in _seen:
            return
        # Activating imports modules, and a module may wrap a client while it is imported, in this thread or in another
        # one. So the lock is reentrant and nobody waits for it forever; at worst an instrumentor says "already active".
        locked = _lock.acquire(timeout=_LOCK_SECONDS)
        try:
            if names not in _seen:
                _seen.add(names)
                _activate(_names(_modules(target)))
        finally:
            if locked:
                _lock.release()
    except Exception as error:  # noqa: BLE001  # the client must work without it
        warn_once("instrumentor", type(error), "%s while looking for an instrumentor.", type(error).__name__)


def _activate(names: list[str]) -> None:
    found = _candidates(names)
    if any(_is_active(candidate) for candidate in found):
        return
    if not found:
        library = next((name for name in names if name in _INSTALLABLE), None)
        if library is not None:
            package = _INSTALLABLE[library]
            warn_once(
                "no_instrumentor",
                package,
                "No instrumentor for %s is installed: wrapped calls get a root span, but model, tokens and messages "
                "are not recorded. Run: pip install %s",
                library,
                package,
            )
        return
    for candidate in found:
        if _try(candidate):
            return


def _candidates(names: Iterable[str]) -> list[EntryPoint]:
    """The installed instrumentors of a library, the preferred one first. Each once, though a path may list it twice."""
    wanted = {other for name in names for other in (name, *_OTHER_NAMES.get(name, ()))}
    found = {point.value: point for point in entry_points(group=_GROUP) if point.name.replace("-", "_") in wanted}
    return sorted(found.values(), key=lambda point: (_preference(point), point.value))


def _preference(point: EntryPoint) -> int:
    if point.module.startswith("openinference."):
        return 0
    return 1 if point.module.startswith("opentelemetry.") else 2


def _is_active(point: EntryPoint) -> bool:
    # Without importing anything: a module that is not loaded has instrumented nothing.
    if point.module not in sys.modules:
        return False
    try:
        return bool(getattr(point.load()(), "is_instrumented_by_opentelemetry", False))
    except Exception:  # noqa: BLE001  # broken, so surely not active; `_try` says so if it comes to that
        return False


def _try(point: EntryPoint) -> bool:
    try:
        instrumentor = point.load()()
        instrumentor.instrument()
    except Exception as error:  # noqa: BLE001  # whatever an import of foreign code raises
        reason = f"{type(error).__name__}: {error}"
    else:
        if getattr(instrumentor, "is_instrumented_by_opentelemetry", True):
            return True
        reason = "it does not support the installed version of the library"
    warn_once("instrumentor_failed", point.value, "The instrumentor %s cannot be activated: %s", point.value, reason)
    return False


def _modules(target: Any) -> list[str]:
    """Names of the modules that an object, a class or a function comes from, the most specific first."""
    while isinstance(target, functools.partial):
        target = target.func
    owner = getattr(target, "__self__", None)
    if owner is not None and not isinstance(target, type):
        target = owner
    module = getattr(target, "__module__", None)
    if isinstance(target, type) or not callable(target) or not isinstance(module, str):
        kind = target if isinstance(target, type) else type(target)
        modules = [str(base.__module__) for base in kind.__mro__]
    else:
        modules = [module, *(str(base.__module__) for base in type(target).__mro__)]
    return list(dict.fromkeys(modules))


def _names(modules: Iterable[str]) -> list[str]:
    """The names under which instrumentors may be announced: `google.genai.client` -> `google`, `google_genai`."""
    names: dict[str, None] = {}
    for module in modules:
        parts = module.split(".")
        if parts[0] not in _FOUNDATIONS | _FRAMEWORKS:
            names.update(dict.fromkeys("_".join(parts[:length]) for length in (1, 2)))
    return list(names)


def _after_fork() -> None:
    global _lock  # Another thread of the parent may have held it.
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
