"""Copies and pickles of what wrap() makes: they work wherever those of the original would."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import neatlogs_otel as neatlogs


class Client:
    def __init__(self) -> None:
        self.answers = ["42"]

    def ask(self) -> str:
        return self.answers[0]


def plain(text: str) -> str:
    return text.upper()


@neatlogs.wrap
def decorated(text: str) -> str:
    """Wrapped under its own name, as a decorator does it."""
    return text.upper()


wrapped_plain = neatlogs.wrap(plain)
WrappedClient = neatlogs.wrap(Client)


def test_copies_of_a_function(recorded) -> None:
    """A function is its own copy, wrapped or not."""
    assert copy.copy(wrapped_plain) is copy.deepcopy({"f": wrapped_plain})["f"] is wrapped_plain
    assert copy.copy(WrappedClient) is copy.deepcopy(WrappedClient) is WrappedClient


def test_copies_of_a_method(recorded) -> None:
    """A deep copy of a method is the wrapped method of a copied object; a plain copy keeps the object."""
    client = neatlogs.wrap(Client(), instrument=False)
    deep, same = copy.deepcopy(client.ask), copy.copy(client.ask)
    client.answers[0] = "43"
    assert (deep(), same()) == ("42", "43")
    assert [span.name for span in recorded.spans] == ["Client.ask", "Client.ask"]


def test_pickles_of_functions_and_classes() -> None:
    """A pickle holds the name under which the wrapped function is found, else the function itself."""

    def again(value: Any) -> Any:
        return pickle.loads(pickle.dumps(value))  # noqa: S301  # our own bytes

    assert again(decorated) is decorated
    assert again(wrapped_plain) is plain
    assert again(WrappedClient) is Client
    assert again(neatlogs.wrap(Client()).ask)() == "42"


class Pages:
    """A result that is both an iterator and data that can be copied."""

    def __init__(self) -> None:
        self.left = [1, 2]

    def __iter__(self) -> Pages:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


def test_copies_of_a_result_in_use(recorded) -> None:
    """A copy or pickle of a result that keeps its root open is a plain one; the root waits for the result itself."""
    live = neatlogs.wrap(lambda: Pages(), instrument=False)()
    copies = [copy.copy(live), copy.deepcopy(live), pickle.loads(pickle.dumps(live))]  # noqa: S301  # our own bytes
    assert [type(one) for one in copies] == [Pages] * 3
    assert list(copies[1]) == [1, 2]
    assert recorded.spans == ()
    assert list(live) == [1, 2]
    assert len(recorded.spans) == 1
