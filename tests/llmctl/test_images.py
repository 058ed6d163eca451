"""Images: tags in texts, files in the home, parts in what is sent."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.attachments import attached, with_attachments
from llmctl.backends.chat_body import chat_body
from llmctl.backends.completion_body import prompt_of
from llmctl.backends.engine_request import messages
from llmctl.backends.responses_body import responses_body
from llmctl.conversation import Message, Request
from llmctl.environment import Environment
from llmctl.errors import Refused, UsageError
from llmctl.images import ABANDONED_S, Image, Images, digests_in, in_short, media_type
from llmctl.profiles import PRESETS
from llmctl.store import title_of
from tests.support.fake_environment import fake_environment

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
JPEG = b"\xff\xd8\xff\xe0" + b"picture"
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Environment]:
    with fake_environment(tmp_path) as captured:
        yield captured.env


def user(text: str) -> Message:
    return Message("user", text)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (b"GIF89a;", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_kinds_are_told_by_their_first_bytes(data: bytes, kind: str | None) -> None:
    assert media_type(data) == kind


def test_an_image_is_a_file_that_only_its_owner_reads_kept_once(tmp_path: Path) -> None:
    images = Images(tmp_path / "home" / "images")
    first, again = images.keep("cat.png", PNG), images.keep("copy.png", PNG)
    (file,) = (tmp_path / "home" / "images").iterdir()
    assert {file.name} == digests_in(first) == digests_in(again)
    assert file.read_bytes() == PNG
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert Images(file.parent).parts(user(again)) == [Image("copy.png", PNG)]


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    images = Images()
    assert images.parts(user(images.keep("cat.png", PNG))) == [Image("cat.png", PNG)]
    assert list(tmp_path.iterdir()) == []


names = st.text(max_size=12)


@given(st.lists(st.tuples(st.text(max_size=20), names, st.sampled_from([PNG, JPEG]))), st.text())
def test_a_text_falls_into_its_parts_whatever_stands_between(
    pieces: list[tuple[str, str, bytes]], rest: str
) -> None:
    images = Images()
    text = "".join(before + images.keep(name, data) for before, name, data in pieces) + rest
    parts = images.parts(user(text))
    shown = "".join(p if isinstance(p, str) else images.keep(p.name, p.data) for p in parts)
    assert shown == text
    assert [p.data for p in parts if isinstance(p, Image)] == [data for _, _, data in pieces]


def test_only_a_person_s_message_has_images() -> None:
    images = Images()
    said = images.keep("cat.png", PNG)
    assert images.parts(Message("assistant", said)) == [said]
    assert messages(Request("m", (Message("assistant", said),))) == [
        {"role": "assistant", "content": said}
    ]


@pytest.mark.parametrize("damage", [None, b"other"])
def test_an_image_that_is_gone_or_another_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    images = Images(tmp_path)
    tag = images.keep("cat.png", PNG)
    (file,) = tmp_path.iterdir()
    file.unlink() if damage is None else file.write_bytes(damage)
    with pytest.raises(Refused, match=r"cat\.png") as caught:
        images.parts(user(tag))
    assert caught.value.hint


def test_the_bodies_have_text_and_images_in_order() -> None:
    images = Images()
    tag = images.keep("cat.png", PNG)
    request = Request("m", (Message("system", "s"), user(f"What is {tag} here?"), user("plain")))
    body = chat_body(PRESETS["openai"], request, usage=True, images=images)
    assert [m["content"] for m in body["messages"]] == [
        "s",
        [
            {"type": "text", "text": "What is "},
            {"type": "image_url", "image_url": {"url": URL}},
            {"type": "text", "text": " here?"},
        ],
        "plain",
    ]
    body = responses_body(PRESETS["openai"], request, images)
    assert body["input"][1]["content"] == [
        {"type": "input_text", "text": "What is "},
        {"type": "input_image", "image_url": URL},
        {"type": "input_text", "text": " here?"},
    ]


def test_a_person_reads_names() -> None:
    tag = Images().keep("cat.png", PNG)
    assert in_short(f"What is {tag} and {tag}?") == "What is [cat.png] and [cat.png]?"
    assert title_of((user(f"What is this?\n\n{tag}"),)) == "What is this? [cat.png]"


def test_who_takes_no_images_says_so() -> None:
    request = Request("m", (user(Images().keep("cat.png", PNG)),))
    with pytest.raises(Refused, match=r"takes no images, and cat\.png is one"):
        messages(request)
    with pytest.raises(Refused, match="completions API takes no images"):
        prompt_of(request.messages)


def test_an_attached_image_is_a_tag_behind_the_prompt(env: Environment) -> None:
    (env.cwd / 'a "b".png').write_bytes(PNG)
    (env.cwd / "a.txt").write_text("one")
    images = Images()
    sent = with_attachments("look", [Path("a.txt"), Path('a "b".png')], env, images)
    assert images.parts(user(sent)) == [
        'look\n\n<file name="a.txt">\none\n</file>\n\n',
        Image("a _b_.png", PNG),
    ]
    with pytest.raises(UsageError, match="an image"):
        attached(Path('a "b".png'), env, None)


def test_what_is_not_used_is_forgotten_after_a_day_and_what_was_deleted_at_once(
    tmp_path: Path,
) -> None:
    images = Images(tmp_path)
    (used,), (fresh,), (gone,) = (
        digests_in(images.keep("x", PNG + each)) for each in (b"1", b"2", b"3")
    )
    now = (tmp_path / fresh).stat().st_mtime
    images.forget(lambda digest: digest == used, {gone, used}, now)
    assert {path.name for path in tmp_path.iterdir()} == {used, fresh}
    images.forget(lambda digest: digest == used, set(), now + ABANDONED_S + 1)
    assert {path.name for path in tmp_path.iterdir()} == {used}
