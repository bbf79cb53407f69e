"""wrap() on OpenAI's and Anthropic's real clients against a local server: one root for each outermost call."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator, Iterator

import anthropic
import openai
import pytest
from opentelemetry.trace import StatusCode

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from support.fake_openai import WORDS, FakeOpenAI

ASK = {"model": "gpt-test", "messages": [{"role": "user", "content": "What is the answer?"}]}
ANSWER = "".join(WORDS)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
def client(server, recorded) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.openai_url, api_key="test", max_retries=0) as real:
        yield neatlogs.wrap(real, instrument=False)


@pytest.fixture
async def async_client(server, recorded) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="test", max_retries=0) as real:
        yield neatlogs.wrap(real, instrument=False)


def names(recorded) -> list[str]:
    assert all(span.parent is None for span in recorded.spans)
    return [span.name for span in recorded.spans]


def test_a_call_is_a_trace_named_after_it(client, recorded) -> None:
    """A call outside any span opens a root named after the call, of kind workflow, and returns what it always did."""
    answer = client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == ANSWER
    assert type(answer) is openai.types.chat.ChatCompletion
    assert names(recorded) == ["OpenAI.chat.completions.create"]
    assert recorded.spans[0].attributes[keys.SPAN_KIND] == "workflow"
    assert recorded.spans[0].attributes[keys.OPENINFERENCE_SPAN_KIND] == "WORKFLOW"


def test_the_end_user_comes_from_identify(client, recorded) -> None:
    """identify() names the end user of the roots that wrapped calls open inside it, one trace for each call."""
    for user in ("alice", "bob"):
        with neatlogs.identify(end_user_id=user, session_id=f"of-{user}"):
            client.chat.completions.create(**ASK)
    assert [span.attributes[keys.END_USER_ID] for span in recorded.spans] == ["alice", "bob"]
    assert [span.attributes[keys.SESSION_ID] for span in recorded.spans] == ["of-alice", "of-bob"]


def test_the_end_user_comes_from_init(client, recorded, default_user) -> None:
    """init() names the end user of wrapped calls that nobody else names."""
    default_user("u_812", {"plan": "pro"})
    client.chat.completions.create(**ASK)
    assert recorded.identity("OpenAI.chat.completions.create") == ("u_812", {"plan": "pro"}, "init")


def test_inside_a_span_no_root_is_opened(client, recorded) -> None:
    """Where a span is active the call belongs to its trace, and wrap() adds nothing."""
    with neatlogs.trace("chat", end_user_id="alice"):
        client.chat.completions.create(**ASK)
    assert names(recorded) == ["chat"]


def test_what_the_call_raises_arrives_and_is_recorded(client, recorded) -> None:
    """The client's error reaches the application unchanged, and the root records it."""
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(**{**ASK, "model": "fail-429"})
    assert raised.value.status_code == 429
    root = recorded.spans[0]
    assert root.status.status_code is StatusCode.ERROR
    assert root.events[0].attributes["exception.type"].endswith("RateLimitError")


def test_a_stream_keeps_the_root_open(client, recorded) -> None:
    """The root of a streaming call ends when the stream is exhausted, not when the call returns."""
    stream = client.chat.completions.create(**ASK, stream=True)
    assert isinstance(stream, openai.Stream)
    words = []
    for chunk in stream:
        assert recorded.spans == ()
        words.append(chunk.choices[0].delta.content or "")
    assert "".join(words) == ANSWER
    assert names(recorded) == ["OpenAI.chat.completions.create"]


def test_a_stream_closed_early_ends_the_root(client, recorded, server) -> None:
    """close() ends the root at once and reaches the server; that a stream was closed early is no error."""
    server.hung_up.clear()
    stream = client.chat.completions.create(**{**ASK, "model": "endless"}, stream=True)
    next(stream)
    stream.close()
    assert server.hung_up.wait(30)
    assert [span.status.status_code for span in recorded.spans] == [StatusCode.UNSET]


def test_a_stream_as_context_manager(client, recorded) -> None:
    """Leaving the `with` block of a stream ends the root, also where the stream was read to its end before."""
    with client.chat.completions.create(**ASK, stream=True) as stream:
        assert len(list(stream)) == len(WORDS) + 1
        assert recorded.spans == ()
    assert len(recorded.spans) == 1


def test_a_stream_that_breaks_is_an_error_of_the_root(client, recorded) -> None:
    """An error in the middle of a stream reaches the application, is recorded, and ends the root."""
    with pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(**{**ASK, "model": "broken"}, stream=True))
    assert recorded.spans[0].status.status_code is StatusCode.ERROR


def test_the_streaming_helper(client, recorded) -> None:
    """`with client.chat.completions.stream(...)` is one root from the call to the end of the block."""
    with client.chat.completions.stream(**ASK) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.content == ANSWER
        assert recorded.spans == ()
    assert "content.delta" in kinds
    assert names(recorded) == ["OpenAI.chat.completions.stream"]


def test_an_error_of_the_application_inside_the_helper_is_recorded(client, recorded) -> None:
    """An exception that leaves the `with` block of a stream is recorded on the root, as for any span."""
    with pytest.raises(LookupError), client.chat.completions.stream(**ASK):
        raise LookupError
    assert recorded.spans[0].status.status_code is StatusCode.ERROR


def test_raw_responses(client, recorded) -> None:
    """`with_raw_response` stays wrapped; a raw response whose body is a stream keeps its root open until that ends."""
    assert client.chat.completions.with_raw_response.create(**ASK).parse().choices
    assert len(recorded.spans) == 1
    raw = client.chat.completions.with_raw_response.create(**ASK, stream=True)
    stream = raw.parse()
    assert len(recorded.spans) == 1
    assert len(list(stream)) == len(WORDS) + 1
    assert names(recorded) == ["OpenAI.chat.completions.with_raw_response.create"] * 2


def test_streamed_responses(client, recorded) -> None:
    """`with_streaming_response` stays wrapped; leaving its block ends the root."""
    with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        assert any("answer" in line for line in response.iter_lines())
        assert recorded.spans == ()
    assert len(recorded.spans) == 1


def test_copies_stay_wrapped(client, recorded) -> None:
    """with_options() makes no trace and returns a wrapped client, and so does copy()."""
    client.with_options(timeout=30).chat.completions.create(**ASK)
    client.copy(timeout=30).chat.completions.create(**ASK)
    assert names(recorded) == ["OpenAI.chat.completions.create"] * 2


def test_responses_api(client, recorded) -> None:
    """The responses API is wrapped as the chat API is: whole, streamed, and by its helper."""
    assert client.responses.create(model="gpt-test", input="?").output_text == ANSWER
    assert list(client.responses.create(model="gpt-test", input="?", stream=True))
    with client.responses.stream(model="gpt-test", input="?") as stream:
        assert stream.get_final_response().output_text == ANSWER
    assert names(recorded) == ["OpenAI.responses.create", "OpenAI.responses.create", "OpenAI.responses.stream"]


def test_a_page_of_results_is_no_stream(client, recorded) -> None:
    """A list of models is data: its root ends with the call."""
    page = client.models.list()
    assert names(recorded) == ["OpenAI.models.list"]
    assert [model.id for model in page] == ["gpt-test"]


def test_the_proxy_looks_like_the_client(client, server) -> None:
    """isinstance, plain attributes, assignment and identity of resources behave as on the client itself."""
    assert isinstance(client, openai.OpenAI)
    assert client.api_key == "test"
    assert str(client.base_url) == f"{server.openai_url}/"
    assert client.chat is client.chat
    client.max_retries = 3
    assert client.__wrapped__.max_retries == 3
    assert client.timeout is client.__wrapped__.timeout
    assert client.is_closed() is False


def test_wrapping_twice_is_wrapping_once(client) -> None:
    """A wrapped client is returned as it is."""
    assert neatlogs.wrap(client) is client


def test_a_copied_client_stays_wrapped(client, recorded) -> None:
    """copy.copy() of a wrapped client is a wrapped client."""
    copy.copy(client).chat.completions.create(**ASK)
    assert len(recorded.spans) == 1


def test_the_with_block_of_a_client_gives_the_wrapped_one(server, recorded) -> None:
    """`with wrap(OpenAI()) as client` does not lose the wrapping."""
    with neatlogs.wrap(openai.OpenAI(base_url=server.openai_url, api_key="test"), instrument=False) as client:
        client.chat.completions.create(**ASK)
    assert client.is_closed()
    assert names(recorded) == ["OpenAI.chat.completions.create"]


def test_a_class_gives_wrapped_instances(server, recorded) -> None:
    """wrap() of a class wraps what the class makes; making it is no trace, and isinstance still takes the class."""
    wrapped = neatlogs.wrap(openai.OpenAI, instrument=False)
    with wrapped(base_url=server.openai_url, api_key="test") as client:
        assert isinstance(client, wrapped)
        client.chat.completions.create(**ASK)
    assert names(recorded) == ["OpenAI.chat.completions.create"]


def test_a_method_alone_can_be_wrapped(server, recorded) -> None:
    """wrap() of one bound method gives each call of it a root."""
    with openai.OpenAI(base_url=server.openai_url, api_key="test") as real:
        neatlogs.wrap(real.chat.completions.create, instrument=False)(**ASK)
        real.chat.completions.create(**ASK)
    assert names(recorded) == ["Completions.create"]


async def test_asynchronous_calls(async_client, recorded) -> None:
    """An asynchronous call is one root, from the call to its result."""
    with neatlogs.identify(end_user_id="alice"):
        pending = async_client.chat.completions.create(**ASK)
    answer = await pending
    assert answer.choices[0].message.content == ANSWER
    assert recorded.id_of("AsyncOpenAI.chat.completions.create") == "alice"


async def test_asynchronous_streams(async_client, recorded) -> None:
    """An asynchronous stream keeps its root open until it is exhausted."""
    stream = await async_client.chat.completions.create(**ASK, stream=True)
    assert isinstance(stream, openai.AsyncStream)
    assert recorded.spans == ()
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == ANSWER
    assert len(recorded.spans) == 1


async def test_asynchronous_streams_closed_early(async_client, recorded) -> None:
    """Closing an asynchronous stream ends its root."""
    stream = await async_client.chat.completions.create(**{**ASK, "model": "endless"}, stream=True)
    async for _ in stream:
        break
    assert recorded.spans == ()
    await stream.close()
    assert [span.status.status_code for span in recorded.spans] == [StatusCode.UNSET]


async def test_asynchronous_helpers(async_client, recorded) -> None:
    """The asynchronous context managers of the client keep their root open until the block is left."""
    async with async_client.chat.completions.stream(**ASK) as stream:
        assert [event async for event in stream]
        assert recorded.spans == ()
    async with async_client.chat.completions.with_streaming_response.create(**ASK) as response:
        assert ANSWER in await response.text()
    assert names(recorded) == [
        "AsyncOpenAI.chat.completions.stream",
        "AsyncOpenAI.chat.completions.with_streaming_response.create",
    ]


async def test_asynchronous_pages(async_client, recorded) -> None:
    """What is both awaitable and an asynchronous iterator works both ways, and ends its root either way."""
    assert [model.id async for model in async_client.models.list()] == ["gpt-test"]
    assert [model.id for model in (await async_client.models.list()).data] == ["gpt-test"]
    assert len(recorded.spans) == 2


async def test_asynchronous_errors(async_client, recorded) -> None:
    """An error of an asynchronous call reaches the application unchanged and is recorded."""
    with pytest.raises(openai.InternalServerError):
        await async_client.chat.completions.create(**{**ASK, "model": "fail-500"})
    assert recorded.spans[0].status.status_code is StatusCode.ERROR


def test_anthropic(server, recorded) -> None:
    """Anthropic's client is wrapped in the same way: whole, streamed, and by its helper."""
    ask = {"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
    with anthropic.Anthropic(base_url=server.url, api_key="test", max_retries=0) as real:
        client = neatlogs.wrap(real, instrument=False)
        assert client.messages.create(**ask).content[0].text == ANSWER
        for _ in client.messages.create(**ask, stream=True):
            assert len(recorded.spans) == 1
        with client.messages.stream(**ask) as stream:
            assert "".join(stream.text_stream) == ANSWER
            assert stream.get_final_message().usage.output_tokens == 4
            assert len(recorded.spans) == 2
    assert names(recorded) == [
        "Anthropic.messages.create",
        "Anthropic.messages.create",
        "Anthropic.messages.stream",
    ]


async def test_anthropic_asynchronously(server, recorded) -> None:
    """Anthropic's asynchronous client and its helper are wrapped too."""
    ask = {"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="test", max_retries=0) as real:
        client = neatlogs.wrap(real, instrument=False)
        assert (await client.messages.create(**ask)).content[0].text == ANSWER
        async with client.messages.stream(**ask) as stream:
            assert "".join([text async for text in stream.text_stream]) == ANSWER
    assert names(recorded) == ["AsyncAnthropic.messages.create", "AsyncAnthropic.messages.stream"]


class Counter:
    """A client that can be pickled."""

    def __init__(self) -> None:
        self.count = 0

    def up(self) -> int:
        self.count += 1
        return self.count


def test_a_pickle_holds_the_client_itself(recorded) -> None:
    """Pickling a wrapped client gives the client; whoever loads it decides whether to wrap it."""
    loaded = pickle.loads(pickle.dumps(neatlogs.wrap(Counter(), instrument=False)))  # noqa: S301  # our own bytes
    assert type(loaded) is Counter
