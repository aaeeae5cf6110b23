"""The command line: one thin file per verb. Parse, call, print."""

from __future__ import annotations

import shlex
import sys
from importlib import import_module

import typer

app = typer.Typer(
    name="cupel",
    help="Learn from preference data that nobody can fully trust: audit, review, curate, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for _verb in ("refine", "audit", "review", "curate", "train", "evaluate", "score", "annotate", "compare", "convert", "doctor"):
    import_module(f"cupel.cli.{_verb}").register(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from cupel import __version__

        typer.echo(__version__)
        raise typer.Exit()


def main() -> None:
    """Run the command line and end the process with the contract's exit codes: 0, 1, 2, 3 or 130."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one command line; messages go to standard error."""
    from cupel.errors import CupelError

    try:
        app(args=arguments, prog_name="cupel", standalone_mode=True)
    except SystemExit as stop:
        code = stop.code
        return code if isinstance(code, int) else (0 if code is None else 1)
    except KeyboardInterrupt:
        print(f"\nInterrupted. Finished stages are kept; resume with:\n  cupel {shlex.join(arguments)}", file=sys.stderr)
        return 130
    except CupelError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        return _system_error(error)
    except Exception:
        import traceback

        traceback.print_exc()
        print("This is a fault of cupel, not of your data. Please report it with the lines above.", file=sys.stderr)
        return 1
    return 0


def _system_error(error: OSError) -> int:
    where = f" ({error.filename})" if error.filename else ""
    print(f"InputError: the system refused: {error.strerror or error}{where}. Nothing half-written was left.", file=sys.stderr)
    return 2
