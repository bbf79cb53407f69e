"""init(auto_session=True): one session for a process that serves one end user, and for nobody else."""

from __future__ import annotations

from uuid import UUID

import neatlogs_otel as neatlogs
from support.programs import run_program


def test_traces_of_the_process_share_one_session(app, said) -> None:
    """Every trace whose end user comes from init() gets the same generated session, wrapped calls too."""
    neatlogs.init(end_user_id="u_812", auto_session=True, export=False)
    with neatlogs.trace("one"):
        pass
    neatlogs.wrap(lambda: None, instrument=False)()
    app.tracer.start_span("by an instrumentation").end()
    sessions = {app.session_of(span.name) for span in app.spans}
    assert len(app.spans) == 3
    assert len(sessions) == 1
    assert UUID(sessions.pop())
    assert said.nothing()


def test_a_trace_with_a_user_of_its_own_never_gets_it(app, said) -> None:
    """A trace that names its own user gets no generated session, because it would merge users; that warns once."""
    neatlogs.init(end_user_id="u_812", auto_session=True, export=False)
    for user in ("alice", "bob"):
        with neatlogs.trace(user, end_user_id=user):
            pass
        with neatlogs.identify(end_user_id=user):
            app.tracer.start_span(f"identified {user}").end()
    assert {app.session_of(span.name) for span in app.spans} == {None}
    assert said.once("auto_session", "session_id=")


def test_without_a_user_there_is_no_session(app) -> None:
    """auto_session without an end user of the process gives nobody a session."""
    neatlogs.init(auto_session=True, export=False)
    with neatlogs.trace("chat"):
        pass
    assert app.session_of("chat") is None


def test_an_explicit_session_wins(app) -> None:
    """session_id of init(), and that of a trace, stand above the generated one."""
    neatlogs.init(end_user_id="u_812", auto_session=True, session_id="mine", export=False)
    with neatlogs.trace("one"):
        pass
    with neatlogs.trace("two", session_id="own"):
        pass
    assert (app.session_of("one"), app.session_of("two")) == ("mine", "own")


def test_a_forked_worker_has_a_session_of_its_own() -> None:
    """After a fork the child is another process, with another session."""
    result = run_program(
        """
        import os
        import neatlogs_otel as neatlogs

        def session():
            with neatlogs.trace("chat") as span:
                return span.attributes["neatlogs.session.id"]

        neatlogs.init(end_user_id="u_812", auto_session=True, export=False)
        sessions = [session(), session()]
        from_child, to_parent = os.pipe()
        if os.fork() == 0:
            os.write(to_parent, session().encode())
            os._exit(0)
        os.close(to_parent)
        sessions.append(os.read(from_child, 100).decode())
        os.wait()
        report([sessions[0] == sessions[1], sessions[0] == sessions[2], len(sessions[2])])
        """,
        strict=False,  # Newer Pythons warn of every fork in a process with threads.
    )
    assert result.report == [True, False, 36]
