"""The command line of `neatlogs-processor`."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.settings import CONFIG_VARIABLE, ENV_PREFIX, Loaded, check_together, entries, load
from neatlogs_processor.store_command import IgnoringClosedOutput, store_command

PROGRAM = "neatlogs-processor"

_DESCRIPTION = """\
Receives OpenTelemetry traces, enforces one end user per trace (the root span's), and sends them on.

commands:
  (none)        run the processor
  health        ask the running processor whether it serves; exit code 0 if it does, else 1
  queue ls      show what waits in --queue-dir and what is dead, also beside a running processor
  queue replay  put dead letters into the queue again: all, or --id NUMBER,NUMBER
  queue purge   delete dead letters: all, or --id NUMBER,NUMBER; with --waiting requests that wait for delivery
  store info    say what is in the store; with --json for programs
  store prune   delete what is over --store-max-age and --store-max-size (here also --max-age, --max-size) now
  store export  write traces as OTLP JSON lines: all, or those of --filter 'end_user is ali', and of --last 24h or
                --from TIME and --to TIME; to --output FILE instead of the standard output
  store forget  erase all traces of --end-user ID; asks first, unless --yes
  store migrate make the tables of --store clickhouse://...; --print prints the statements, --cluster NAME for a cluster
  store rebuild fill what the rollups on ClickHouse miss: for spans from before, after a crash; --check only says it
  store copy    copy sqlite:FILE to clickhouse://user@host:8123/database; goes on where it stopped, and verifies
  pseudonym     print what stands for --end-user ID under each key of --pseudonymize-key-file, the first one first
  ottl          print the rule for an OpenTelemetry Collector's transform processor, as near as that comes to it
"""

_EPILOG = f"""\
Every flag is also a variable: --grpc-listen is {ENV_PREFIX}GRPC_LISTEN, and a key of the file: grpc_listen.
A flag wins over a variable, a variable over the file, the file over the default.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0, 1 (failed) or 2 (configuration).

    Args:
        argv: The arguments without the program's name; `sys.argv` unless given.
    """
    # gRPC's own log lines go to stderr unformatted; what matters of them is in our messages.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return _main(list(sys.argv[1:] if argv is None else argv), os.environ)
    except ConfigError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except (ProcessorError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _main(argv: list[str], environ: Mapping[str, str]) -> int:
    commands: dict[str, Callable[[Loaded], int]] = {"run": _run, "health": _health}
    command = "run"
    if argv and not argv[0].startswith("-"):
        command = argv.pop(0)
        if command == "queue":
            commands[command] = _queue_command(argv)
        elif command == "store":
            commands[command] = store_command(argv, _Parser)
        elif command == "pseudonym":
            commands[command] = _pseudonym_command(argv)
        elif command == "ottl":
            return _ottl(argv)
        elif command not in commands:
            known = [*commands, "queue", "store", "pseudonym", "ottl"]
            raise ConfigError(f"unknown command {command!r}{_did_you_mean(command, known)}")
    arguments = _parse(argv)
    config, config_flag = arguments.pop("config", None), "--config"
    if config is None and environ.get(CONFIG_VARIABLE):
        config, config_flag = environ[CONFIG_VARIABLE], CONFIG_VARIABLE
    print_config = arguments.pop("print_config", False)
    loaded = load(arguments, environ, config=None if config is None else Path(config), config_flag=config_flag)
    if print_config:
        with IgnoringClosedOutput():
            print(describe(loaded), flush=True)
        return 0
    return commands[command](loaded)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all flags. Flags that are not given leave no trace in its result."""
    parser = _Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage=f"{PROGRAM} [command] [flags]",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=110),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    general = parser.add_argument_group("General")
    general.add_argument("-h", "--help", action="help", help="Print this and exit.")
    general.add_argument(
        "--version",
        action="version",
        version=f"{PROGRAM} {version('neatlogs-otel')}",
        help="Print the version and exit.",
    )
    general.add_argument("--config", metavar="FILE", help="A TOML file with settings.")
    general.add_argument(
        "--print-config", action="store_true", help="Print every setting with its source, secrets masked, and exit."
    )
    groups: dict[str, Any] = {}
    for entry in entries():
        group = groups.get(entry.meta.group)
        if group is None:
            group = groups[entry.meta.group] = parser.add_argument_group(entry.meta.group)
        text = entry.description.replace("%", "%%")
        if entry.is_switch:
            group.add_argument(entry.flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
            continue
        default = entry.show(entry.default)
        text += f" Default: {default.replace('%', '%%')}." if default else ""
        group.add_argument(entry.flag, metavar=entry.meta.metavar, help=text)
    return parser


def describe(loaded: Loaded) -> str:
    """Return every setting with its value and source, one a line."""
    rows = [
        (
            f"{entry.name} = {entry.show(getattr(loaded.settings, entry.name))}".rstrip(),
            loaded.sources[entry.name] + entry.expand(getattr(loaded.settings, entry.name)),
        )
        for entry in entries()
    ]
    width = min(60, max(len(value) for value, _ in rows))
    return "\n".join(f"{value:{width}}  # {source}" for value, source in rows)


def _parse(argv: list[str]) -> dict[str, Any]:
    parser = build_parser()
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = ["--help", "--version", "--config", "--print-config", *(entry.flag for entry in entries())]
        flag = unknown[0].partition("=")[0]
        if not flag.startswith("-"):
            raise ConfigError(f"unexpected argument {flag!r}; --help shows how flags are written")
        raise ConfigError(f"unknown flag {flag}{_did_you_mean(flag, flags)}")
    return vars(known)


def _did_you_mean(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; --help lists what there is"


def _refuse_slow_protobuf() -> None:
    from google.protobuf.internal import api_implementation

    # The rule's strict way and its limits in time and memory were measured against the reader in C.
    if api_implementation.Type() == "python":
        raise ConfigError(
            "protobuf runs on its pure-Python reader, which is many times slower and bounds less; unset"
            " PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or install a protobuf wheel for this platform"
        )


def _run(loaded: Loaded) -> int:
    check_together(loaded.settings)
    _refuse_slow_protobuf()
    # gRPC is loaded only where it is needed: --help and mistakes answer at once.
    from neatlogs_processor.service import run
    from neatlogs_processor.telemetry import configure_logging

    configure_logging(loaded.settings.log_level, loaded.settings.log_format)
    asyncio.run(run(loaded.settings))
    return 0


def _queue_command(argv: list[str]) -> Callable[[Loaded], int]:
    """Take the command's own words out of `argv`, and return what runs it."""
    names = ("ls", "replay", "purge")
    name = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    if name not in names:
        raise ConfigError(f"queue {name or 'alone'} is no command; write queue ls, queue replay or queue purge")
    own = _Parser(prog=f"{PROGRAM} queue {name}", add_help=False, allow_abbrev=False)
    if name != "ls":
        own.add_argument("--id", default="")
    if name == "purge":
        own.add_argument("--waiting", action="store_true")
    given, argv[:] = own.parse_known_args(argv)

    def run(loaded: Loaded) -> int:
        from neatlogs_processor.holding.file import describe_held
        from neatlogs_processor.queue import commands

        path = loaded.settings.queue_dir
        if path is None:
            raise ConfigError(f"queue {name} needs --queue-dir DIRECTORY")
        if name == "ls":
            commands.list_queue(path, sys.stdout)
            if held := describe_held(path):
                print(held)
        elif name == "replay":
            commands.replay(path, _ids(given.id), sys.stdout)
        else:
            commands.purge(path, _ids(given.id), sys.stdout, waiting=given.waiting)
        return 0

    return run


def _ids(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isascii() and word.isdigit() for word in words) or (text and not words):
        raise ConfigError(f"--id: {text!r} cannot be used: write the numbers that queue ls shows, with commas")
    return [int(word) for word in words]


def _pseudonym_command(argv: list[str]) -> Callable[[Loaded], int]:
    """Take the command's own words out of `argv`, and return what runs it."""
    own = _Parser(prog=f"{PROGRAM} pseudonym", add_help=False, allow_abbrev=False)
    own.add_argument("--end-user", default="")
    given, argv[:] = own.parse_known_args(argv)
    end_user: str = given.end_user
    if not end_user.strip():
        raise ConfigError("pseudonym needs --end-user ID")

    def run(loaded: Loaded) -> int:
        from neatlogs_processor.pseudonym_keys import read_keys

        path = loaded.settings.pseudonymize_key_file
        if path is None:
            raise ConfigError("pseudonym needs --pseudonymize-key-file FILE")
        known_as = read_keys(path).lookup(end_user)
        with IgnoringClosedOutput():
            # The id comes first, unless it is a pseudonym itself.
            print("\n".join(known_as[1:] or known_as), flush=True)
        return 0

    return run


def _ottl(argv: list[str]) -> int:
    from neatlogs_processor.ottl import configuration

    if argv:
        raise ConfigError(f"ottl takes no flags, and got {argv[0]!r}")
    with IgnoringClosedOutput():
        print(configuration(), flush=True)
    return 0


def _health(loaded: Loaded) -> int:
    from neatlogs_processor.probe import probe, probe_admin

    settings = loaded.settings
    if settings.tls_cert_file is None or settings.grpc_listen.path:
        serving, message = probe(settings.grpc_listen)
    elif settings.admin_listen is not None:
        serving, message = probe_admin(settings.admin_listen)
    else:
        raise ConfigError("with --tls-cert-file, health asks --admin-listen, which is none")
    print(message)
    return 0 if serving else 1
