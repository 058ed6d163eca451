from pathlib import Path

import pytest

from llmctl.errors import UsageError
from llmctl.events import Action
from llmctl.markers import DEFAULT_MARKERS
from llmctl.templates import Template, all_templates, load_template, parse_template
from tests.support.fake_environment import fake_environment

FRONT = """+++
description = "d"
role = "user"
[variables]
tone = "dry"
[options]
temperature = 0.5
[markers]
"!!DONE" = "stop"
+++
Say {{prompt}} in {{ tone }} {{language}}.
"""


def template(tmp_path: Path, text: str) -> Template:
    path = tmp_path / "t.md"
    path.write_text(text)
    return parse_template("t", path)


def test_a_user_template_is_filled_in(tmp_path: Path) -> None:
    rendered = template(tmp_path, FRONT).render({"language": "Latin"}, "hello")
    assert (rendered.system, rendered.prompt) == (None, "Say hello in dry Latin.")
    assert (rendered.options, rendered.markers) == ({"temperature": 0.5}, {"!!DONE": Action.STOP})


def test_a_file_without_front_matter_is_a_system_message(tmp_path: Path) -> None:
    rendered = template(tmp_path, "Be {{how}}.\n").render({"how": "brief"}, "hello")
    assert (rendered.system, rendered.prompt) == ("Be brief.", "hello")


def test_a_user_template_without_a_place_for_the_prompt_comes_before_it(tmp_path: Path) -> None:
    made = template(tmp_path, '+++\nrole = "user"\n+++\nExplain.')
    assert made.render({}, "hello").prompt == "Explain.\n\nhello"
    assert made.render({}).prompt == "Explain."


def test_what_is_filled_in_is_not_filled_in_again(tmp_path: Path) -> None:
    made = template(tmp_path, '+++\nrole = "user"\n+++\n{{a}}{{prompt}}')
    assert made.render({"a": "{{prompt}}"}, "{{a}}").prompt == "{{prompt}}{{a}}"


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the variable 'language'") as caught:
        template(tmp_path, FRONT).render({}, "x")
    assert caught.value.hint == "Add -V language=VALUE."


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no variable 'langage'") as caught:
        template(tmp_path, FRONT).render({"langage": "Latin"}, "x")
    assert caught.value.hint == "Did you mean 'language'?"


@pytest.mark.parametrize(
    ("front", "message"),
    [
        ("descrption = 1", "'descrption' is not known"),
        ('role = "assistant"', "role must be one of system, user"),
        ('[options]\ntemprature = "x"', "'temprature' is not known"),
        ('[markers]\n"!!X" = "explode"', "must be one of pause, stop, ask"),
        (
            "[options]\ntemperature = -1",
            "options.temperature must be a number of 0 or more, not -1",
        ),
        ('[options]\nmax_tokens = "x"', "options.max_tokens must be a whole number above 0"),
        ("[options]\nseed = true", "options.seed must be a whole number, not True"),
        ("[options]\nstop = [1]", "options.stop must be a text or a list of texts"),
        ("variables = 3", "variables must be a table"),
        ("role =", "not TOML"),
    ],
)
def test_front_matter_that_nobody_understands(tmp_path: Path, front: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        template(tmp_path, f"+++\n{front}\n+++\nbody")


def test_what_some_editors_put_before_a_text_hides_no_front_matter(tmp_path: Path) -> None:
    assert template(tmp_path, "\ufeff+++\nversion = 7\n+++\nbody").version == 7


def test_a_stop_may_be_one_text(tmp_path: Path) -> None:
    made = template(tmp_path, '+++\n[options]\nstop = "END"\nseed = 7\n+++\nbody')
    assert made.options == {"stop": ("END",), "seed": 7}


def test_files_that_cant_be_used_hide_no_others(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        (fake.env.user_templates / "folder.md").mkdir(parents=True)
        (fake.env.user_templates / "concise.md").write_text("+++\nrole = 1\n+++\nMine.")
        usable, problems = all_templates(fake.env)
    assert "markers" in {template.name for template in usable}
    assert [problem.message.partition(".md")[2] for problem in problems] == [
        ": role must be one of system, user, not 1.",
        " can't be read: Is a directory.",
    ]


def test_the_user_s_own_hide_installed_ones(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        fake.env.user_templates.mkdir(parents=True)
        (fake.env.user_templates / "concise.md").write_text("Mine.")
        assert load_template("concise", fake.env).body == "Mine."
        assert load_template("markers", fake.env).path.parent != fake.env.user_templates


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake, pytest.raises(UsageError) as caught:
        load_template("markrs", fake.env)
    assert caught.value.hint == "Did you mean 'markers'?"


def test_every_installed_template_can_be_used(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        usable, problems = all_templates(fake.env)
        assert not problems
        for made in usable:
            given = dict.fromkeys(made.variables, "x")
            rendered = made.render(given, "the prompt")
            assert made.description
            assert "{{" not in rendered.prompt + (rendered.system or "")


def test_the_marker_protocol_teaches_what_chat_listens_for(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        taught = load_template("markers", fake.env)
    assert taught.markers.items() <= DEFAULT_MARKERS.items()
    assert all(text in taught.body for text in taught.markers)


def test_every_installed_template_has_a_version_and_what_the_program_uses_is_there(
    tmp_path: Path,
) -> None:
    with fake_environment(tmp_path) as captured:
        installed = {template.name: template for template in all_templates(captured.env)[0]}
    assert {"markers", "continuation", "steering", "summary"} <= installed.keys()
    for template in installed.values():
        assert "\nversion = " in template.path.read_text("utf-8"), template.name
        assert template.description.endswith(".") or template.description.endswith(").")
    assert installed["summary"].asks_by_itself
    assert not installed["translate"].asks_by_itself
    assert not installed["steering"].asks_by_itself


def test_a_version_is_a_count(tmp_path: Path) -> None:
    assert template(tmp_path, "+++\nversion = 3\n+++\nx").version == 3
    with pytest.raises(UsageError, match="version must be a whole number"):
        template(tmp_path, '+++\nversion = "new"\n+++\nx')
