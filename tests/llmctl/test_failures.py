import errno
from pathlib import Path

import pytest
import typer

from llmctl.cli.failures import report
from llmctl.cli.invocation import Invocation
from llmctl.errors import BelowRequire, LlmctlError, Refused, Unreachable, UsageError
from tests.support.fake_environment import fake_environment


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("No.", "Do."), 2),
        (Refused("No.", "Do."), 3),
        (Unreachable("No.", "Do."), 4),
        (BelowRequire("No.", "Do."), 7),
        (LlmctlError("No.", "Do."), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_ours_is_its_sentence_and_its_hint(
    tmp_path: Path, error: LlmctlError, status: int
) -> None:
    with fake_environment(tmp_path) as fake:
        assert report(error, Invocation(fake.env)) == status
        assert (fake.out, fake.err) == ("", "llmctl: No.\nhint: Do.\n")


def test_a_bug_is_called_one(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        assert report(ZeroDivisionError("by zero"), Invocation(fake.env)) == 1
        assert fake.err.startswith("llmctl: ZeroDivisionError: by zero\nhint: ")
        assert "--verbose" in fake.err


@pytest.mark.parametrize(
    "number", [errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EROFS]
)
def test_a_place_that_can_t_be_used_is_bad_input(tmp_path: Path, number: int) -> None:
    with fake_environment(tmp_path) as fake:
        assert report(OSError(number, "No", "/data/f"), Invocation(fake.env)) == 2
        assert fake.err.startswith("llmctl: /data/f: No.\nhint: Name another place;")


def test_trouble_with_a_file_names_it(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/data/f")
    with fake_environment(tmp_path) as fake:
        assert report(error, Invocation(fake.env)) == 1
        assert fake.err.startswith("llmctl: /data/f: No space left on device.\nhint: ")


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), 130), (typer.Abort(), 130), (BrokenPipeError(), 141)],
)
def test_some_ends_are_quiet(
    tmp_path: Path, error: Exception | KeyboardInterrupt, status: int
) -> None:
    with fake_environment(tmp_path) as fake:
        assert report(error, Invocation(fake.env)) == status
        assert fake.err == ""


@pytest.mark.parametrize("verbose", [False, True])
def test_no_key_is_in_any_message(tmp_path: Path, *, verbose: bool) -> None:
    with fake_environment(tmp_path) as fake:
        invocation = Invocation(fake.env)
        invocation.verbose = verbose
        invocation.secrets.add("sk-secret-1")
        report(Refused("401: sk-secret-1 is wrong.", "Store another."), invocation)
        assert "sk-secret" not in fake.err
        assert "[key] is wrong." in fake.err
        assert ("Refused" in fake.err) is verbose


@pytest.mark.parametrize(
    "error",
    [
        ExceptionGroup("unhandled", [Refused("No.", "Do.")]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [Refused("No.", "Do.")])]),
    ],
)
def test_a_group_of_one_is_told_as_that_one(tmp_path: Path, error: Exception) -> None:
    with fake_environment(tmp_path) as fake:
        assert report(error, Invocation(fake.env)) == 3
        assert fake.err == "llmctl: No.\nhint: Do.\n"


def test_a_group_of_several_is_a_bug(tmp_path: Path) -> None:
    error = ExceptionGroup("unhandled", [ValueError("a"), ValueError("b")])
    with fake_environment(tmp_path) as fake:
        assert report(error, Invocation(fake.env)) == 1
        assert fake.err.startswith("llmctl: ExceptionGroup: unhandled (2 sub-exceptions)\nhint: ")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("others", [[], [ValueError("what came of it")]])
def test_too_many_open_files_are_no_bug(
    tmp_path: Path, number: int, others: list[Exception]
) -> None:
    short = OSError(number, "Too many open files", "/data/f")
    for error in (short, ExceptionGroup("unhandled", [*others, short])):
        with fake_environment(tmp_path) as fake:
            assert report(error, Invocation(fake.env)) == 1
            assert fake.err.startswith("llmctl: No more files can be opened: too many are open")
            assert "ulimit -n" in fake.err
