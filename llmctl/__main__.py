"""Start the program. Asking for the version takes a path of its own, before any import."""

import sys

from llmctl._version import __version__


def main() -> None:
    """Run `llmctl` with this process's arguments and exit with its status."""
    if sys.argv[1:] == ["--version"]:
        print(f"llmctl {__version__}")  # noqa: T201  (the one line before the machinery exists)
        return
    # Imported here for start-up's sake: Typer alone costs five times the interpreter.
    from llmctl.cli import main as run  # noqa: PLC0415

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
