"""`neatlogs-processor ottl`: the rule for a Collector's transform processor, as near as its language comes.

The language (OTTL) is described at https://github.com/open-telemetry/opentelemetry-collector-contrib, `pkg/ottl`.
"""

from __future__ import annotations

from typing import Final

from neatlogs_processor.core.schema import END_USER_ID, END_USER_METADATA, END_USER_SOURCE, NAMESPACE, SOURCE_RESOURCE

CANNOT: Final = (
    "Links keep identity: OTTL does not reach the attributes of a link.",
    "Nothing is counted, and whoever wrote an override is not told: OTTL knows neither counters nor messages.",
    "Entry spans cannot own identity (--roots entry): OTTL does not see that a span's parent is remote.",
    "Every span is decoded and encoded, also where nothing changes, so other bytes may leave than came.",
    "Where an attribute's key or value was sent twice, what stays may be another one, and there may be two.",
    "Metadata that is a map with NaN or an infinity in it is removed.",
    "What is malformed or can be read in several ways is judged by the Collector's receiver, and may pass.",
)
"""What the configuration does not do, a sentence each."""


def configuration() -> str:
    """Return the configuration of one transform processor, as YAML; comments say what it cannot do."""
    lines = [
        "# One end user per trace, owned by the root span: what the OpenTelemetry Collector's transform processor can",
        "# do of it. Add transform/end-user to the processors of each traces pipeline, before whatever batches.",
        "# What it cannot do, and neatlogs-processor does:",
        *(f"# - {sentence}" for sentence in CANNOT),
        "processors:",
        "  transform/end-user:",
        "    # A batch that cannot be transformed is refused, instead of being sent on with overrides in it.",
        "    error_mode: propagate",
        "    trace_statements:",
    ]
    for context, statements in _statements():
        lines.append(f"      - context: {context}")
        if any(" String(" in statement for statement in statements):
            # A map that JSON cannot hold (NaN) would refuse its whole batch again and again; it is removed below.
            lines.append("        error_mode: ignore")
        lines.append("        statements:")
        lines += [f"          - {statement}" for statement in statements]
    return "\n".join(lines)


def _statements() -> list[tuple[str, list[str]]]:
    """The statements of each context, in the order in which they have to run."""
    namespace = f'"^{NAMESPACE.decode().replace(".", "[.]")}([.]|$)"'
    own_id, own_metadata, own_source = (
        _attribute("span", key) for key in (END_USER_ID, END_USER_METADATA, END_USER_SOURCE)
    )
    default_id, default_metadata = (_attribute("resource", key) for key in (END_USER_ID, END_USER_METADATA))
    # A root whose id cannot be used takes no default either, so what is unusable leaves only after this.
    # What is no text at all matches nothing.
    nameless = f"IsRootSpan() and not {_says_something(own_id)}"
    takes_id = f"{nameless} and (IsInt({default_id}) or IsString({default_id})) and {_says_something(default_id)}"
    usable_metadata = f"(IsString({default_metadata}) or IsMap({default_metadata}))"
    takes_metadata = f"{own_metadata} == nil and {usable_metadata}"
    lone = f"{nameless} and {default_id} == nil and {takes_metadata}"
    source = f'set({own_source}, "{SOURCE_RESOURCE}")'
    values = [
        f"{source} where {own_source} == nil and {lone}",
        f"set({own_metadata}, String({default_metadata})) where {lone}",
        f"{source} where {own_source} == nil and {takes_id}",
        f"set({own_metadata}, String({default_metadata})) where {takes_id} and {takes_metadata}",
        f"set({own_id}, String({default_id})) where {takes_id}",
        f"set({own_id}, String({own_id})) where IsRootSpan() and IsInt({own_id})",
        f"set({own_metadata}, String({own_metadata})) where IsRootSpan() and IsMap({own_metadata})",
    ]
    unusable = [
        f'delete_key(span.attributes, "{key.decode()}") where IsRootSpan() and not IsString({_attribute("span", key)})'
        for key in (END_USER_ID, END_USER_METADATA, END_USER_SOURCE)
    ]
    remove = {
        context: [f"delete_matching_keys({context}.attributes, {namespace})"]
        for context in ("spanevent", "scope", "resource")
    }
    children = [f"delete_matching_keys(span.attributes, {namespace}) where not IsRootSpan()"]
    return [("span", children), ("span", values), ("span", unusable), *remove.items()]


def _attribute(of: str, key: bytes) -> str:
    return f'{of}.attributes["{key.decode()}"]'


def _says_something(value: str) -> str:
    return f'IsMatch({value}, "[^[:space:]]")'
