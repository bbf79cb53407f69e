"""What `init()` was given, checked: what can never work raises, what is wrong in the environment is logged."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from neatlogs_otel import conventions
from neatlogs_otel._endpoint import Endpoint, EndpointError, choose_endpoint
from neatlogs_otel._warnings import logger, warn_once


def check_texts(**texts: object) -> None:
    """Check that each argument is text or `None`.

    Raises:
        TypeError: One is not.
    """
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {type(value).__name__}")


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers to send.

    Raises:
        TypeError: Not a mapping of `str` to `str`.
        ValueError: A name or value that a header cannot hold.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of str to str, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must be a mapping of str to str")
        if not name or not (name + value).isascii() or not (name + value).isprintable() or " " in name:
            raise ValueError(f"header {name!r} cannot be sent: use printable ASCII")
    return dict(headers)


def checked_api_key(argument: str | None) -> str | None:
    """The API key of the argument, else of `NEATLOGS_API_KEY`; `None` where there is none. It never appears in a log.

    Raises:
        ValueError: The argument has characters that a header cannot hold.
    """
    key = (os.environ.get("NEATLOGS_API_KEY", "") if argument is None else argument).strip()
    if key.isascii() and key.isprintable():
        return key or None
    if argument is not None:
        raise ValueError("api_key has characters that cannot be sent in a header")
    logger.error("NEATLOGS_API_KEY has characters that cannot be sent in a header, so no key is sent.")
    return None


def destination(endpoint: str | None, protocol: str | None) -> Endpoint | None:
    """Where to export; `None`, with an error in the log, where the environment names what can never work.

    Raises:
        EndpointError: The argument can never work.
    """
    try:
        chosen = choose_endpoint(endpoint, protocol, os.environ)
    except EndpointError as error:
        if error.source == "argument":
            raise
        # Whoever changes the environment of a service must not be able to stop it.
        logger.error("Nothing is exported: %s.", error)
        return None
    if chosen.note:
        warn_once("endpoint", chosen.url, "Exporting to %s: %s.", chosen.url, chosen.note)
    return chosen


def resource_attributes(
    user_id: object, workflow_name: str | None, project: str | None, tags: object
) -> dict[str, str]:
    """The resource attributes of `init()`, without those that were not given. Never raises."""
    texts = {
        conventions.OPERATOR_ID: _encoded(conventions.encode_id, "user_id", user_id),
        conventions.WORKFLOW_NAME: workflow_name,
        conventions.PROJECT: project,
        conventions.TAGS: _encoded(conventions.encode_tags, "tags", tags),
    }
    return {key: text for key, text in texts.items() if text is not None and text.strip()}


def _encoded(encode: Callable[[object], str | None], name: str, value: object) -> str | None:
    try:
        return encode(value)
    except Exception as error:  # noqa: BLE001  # a foreign __str__ or iterable may raise anything
        reason = str(error) if isinstance(error, conventions.RefusedError) else f"{type(error).__name__} was raised"
        verb = "are" if name.endswith("s") else "is"
        warn_once("init_refused", name, "%s of init() %s refused, because %s.", name, verb, reason)
        return None
