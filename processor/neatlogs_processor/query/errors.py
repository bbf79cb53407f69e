"""What is wrong with a question, and where."""

from __future__ import annotations

from neatlogs_processor.errors import ProcessorError


class QueryError(ProcessorError):
    """A filter, or another part of a view, that cannot be understood.

    Args:
        message: What is wrong and what would fit, in one sentence.
        parameter: The part of the query string that it stands in.
        index: Which of the parameters of that name, from 0.
        position: The character of that text at which it goes wrong, from 0.
        expected: What would fit there: words or symbols as one types them, or a description in angle brackets.
    """

    reason = "query"

    def __init__(
        self,
        message: str,
        *,
        parameter: str = "filter",
        index: int = 0,
        position: int = 0,
        expected: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.parameter = parameter
        self.index = index
        self.position = position
        self.expected = expected

    def at(self, index: int) -> QueryError:
        """Return the same error about the parameter with this index."""
        return QueryError(
            self.message, parameter=self.parameter, index=index, position=self.position, expected=self.expected
        )


class FilterRefusedError(QueryError):
    """A filter that can be understood, and that the store cannot answer.

    Args:
        message: Why not, and what can be asked instead, in one sentence.
        place: Which of the view's filters it is, from 0.
        expected: As for `QueryError`.
    """

    def __init__(self, message: str, *, place: int, expected: tuple[str, ...] = ()) -> None:
        # As if each filter stood in a parameter of its own, as the page itself writes them.
        super().__init__(message, index=place, expected=expected)
        self.place = place
