import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.environment import open_private, private_dir, write_private
from tests.support.fake_environment import fake_environment


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o377], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    yield
    os.umask(old)


@pytest.mark.usefixtures("_umask")
def test_only_the_owner_reads_what_is_written(tmp_path: Path) -> None:
    folder = private_dir(tmp_path / "a" / "b")
    write_private(folder / "whole", "x")
    with open_private(folder / "opened", "a") as file:
        file.write("y")
    assert [mode(tmp_path / "a"), mode(folder)] == [0o700, 0o700]
    assert [mode(folder / "whole"), mode(folder / "opened")] == [0o600, 0o600]


def test_a_file_that_others_could_read_is_closed_to_them_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.touch(0o644)
    with open_private(path, "ab"):
        assert mode(path) == 0o600


def test_a_folder_that_exists_stays_as_its_owner_made_it(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o750)
    assert mode(private_dir(folder)) == 0o750


def test_a_file_in_the_way_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        private_dir(tmp_path / "file" / "below")


def test_replacing_keeps_line_ends_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_private(path, "old")
    write_private(path, "a\r\nb\n")
    assert path.read_bytes() == b"a\r\nb\n"
    assert [left.name for left in tmp_path.iterdir()] == ["f"]


def test_replacing_follows_a_symbolic_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "link").symlink_to(target)
    write_private(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link to a fifo"])
def test_only_a_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            try:
                os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            except PermissionError:
                pytest.skip("only root makes devices")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(tmp_path / "target")
            path.symlink_to("target")
    before = {each.name: each.lstat().st_mode for each in tmp_path.iterdir()}
    with pytest.raises(OSError, match=r"regular file|Is a directory") as told:
        write_private(path, "new")
    assert told.value.filename == str(path)
    assert {each.name: each.lstat().st_mode for each in tmp_path.iterdir()} == before


def test_a_link_that_leads_in_a_circle_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_private(tmp_path / "a", "new")


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, (text.encode() for text in ("new", "\ud800")))
    assert path.read_text() == "old"
    assert [left.name for left in tmp_path.iterdir()] == ["f"]


def test_paths_start_from_the_working_directory_or_home(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        assert fake.env.resolve("a/b") == tmp_path / "a/b"
        assert fake.env.resolve("~/a") == tmp_path / "home/a"
        assert fake.env.resolve("/a") == Path("/a")


def test_one_folder_for_everything(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        moved = fake.env.at_home("here")
    assert {moved.data, moved.config} == {tmp_path / "here"}
    assert moved.models == tmp_path / "here/models"


def test_weights_may_live_elsewhere(tmp_path: Path) -> None:
    with fake_environment(tmp_path, LLMCTL_MODELS="~/weights") as fake:
        assert fake.env.models == tmp_path / "home/weights"


@pytest.mark.parametrize(
    ("variables", "allowed"),
    [
        ({}, False),
        ({"CLICOLOR_FORCE": "1"}, True),
        ({"CLICOLOR_FORCE": "0"}, False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": ""}, True),
    ],
)
def test_colour_where_nobody_asked(
    tmp_path: Path, variables: dict[str, str], *, allowed: bool
) -> None:
    with fake_environment(tmp_path, **variables) as fake:
        assert fake.env.allows_color(fake.env.stdout) is allowed


def test_input_is_a_file_or_a_pipe(tmp_path: Path) -> None:
    with fake_environment(tmp_path, typed="grüß\n") as fake:
        assert fake.env.has_input
        assert fake.env.read_input() == "grüß\n"


def test_bytes_that_are_no_text_do_not_fail(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        os.write(fake.env.stdin, b"a\xffb")
        os.lseek(fake.env.stdin, 0, os.SEEK_SET)
        assert fake.env.read_input() == "a\ufffdb"


def test_results_and_talk_go_to_their_own_places(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        fake.env.say("result 🦊")
        fake.env.note("talk")
        assert (fake.out, fake.err) == ("result 🦊\n", "talk\n")
