"""The tables of fields and operators in the processor's README, made from the fields and operators themselves.

`python -m support.filter_tables` in the folder `tests` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

from neatlogs_processor.query.fields import FIELDS, METADATA, Arity, Operator

README = Path(__file__).parents[2] / "processor" / "README.md"
BEGIN = "<!-- filters: begin (tests/support/filter_tables.py writes this) -->"
END = "<!-- filters: end -->"

_VALUES = {Arity.NONE: "", Arity.ONE: " a", Arity.MANY: " a, b"}
_MEANS = {
    Operator.IS: "exactly a",
    Operator.IS_NOT: "anything but a, or missing",
    Operator.CONTAINS: "a is somewhere in it; case does not matter",
    Operator.DOES_NOT_CONTAIN: "a is nowhere in it, or it is missing",
    Operator.STARTS_WITH: "begins with a; case does not matter",
    Operator.ENDS_WITH: "ends with a; case does not matter",
    Operator.IS_ANY_OF: "exactly a, or exactly b",
    Operator.IS_NONE_OF: "neither a nor b, or missing",
    Operator.IS_SET: "there is a value",
    Operator.IS_NOT_SET: "there is none",
    Operator.EQUAL: "the same number",
    Operator.NOT_EQUAL: "another number",
    Operator.GREATER: "over a; of times: after a",
    Operator.GREATER_OR_EQUAL: "a or over",
    Operator.LESS: "under a; of times: before a",
    Operator.LESS_OR_EQUAL: "a or under",
}


def tables() -> str:
    """Return both tables in Markdown."""
    lines = ["| Field | What it is | Its values | Operators |", "|---|---|---|---|"]
    for spec in FIELDS.values():
        name = f"{spec.name}:key" if spec.name == METADATA else spec.name
        lines.append(f"| `{name}` | {spec.help} | {spec.kind.value} | {_family(spec.operators)} |")
    lines += ["", "| Operator | Short | What it selects |", "|---|---|---|"]
    for operator in Operator:
        symbol = f"`{operator.symbol}`" if operator.symbol else ""
        symbol = "`-field`" if operator is Operator.IS_NOT_SET else symbol
        lines.append(f"| `{operator.words}{_VALUES[operator.arity]}` | {symbol} | {_MEANS[operator]} |")
    return "\n".join(lines)


def current() -> str:
    """Return the tables that stand in the README."""
    text = README.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def write() -> None:
    """Replace the tables in the README."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _family(operators: tuple[Operator, ...]) -> str:
    text = FIELDS["end_user"].operators
    if operators == text:
        return "of text"
    if operators == FIELDS[METADATA].operators:
        return "of text; `>` `>=` `<` `<=` with a number"
    if Operator.GREATER in operators:
        return "of numbers: " + " ".join(f"`{operator.words}`" for operator in operators)
    return ", ".join(f"`{operator.words}`" for operator in operators)


if __name__ == "__main__":
    write()
