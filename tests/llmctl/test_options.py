import pytest

from llmctl.cli.options import body_fields, key_values
from llmctl.errors import UsageError


def test_key_and_value_are_split_at_the_first_equals_sign() -> None:
    assert key_values(["a=1", "b=x=y", "a=2", "c="], "-V") == {"a": "2", "b": "x=y", "c": ""}
    assert key_values(None, "-V") == {}


@pytest.mark.parametrize("word", ["", "a", "=b"])
def test_a_word_without_key_or_sign_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="-V takes KEY=VALUE"):
        key_values([word], "-V")


def test_a_body_field_is_json_if_it_parses() -> None:
    given = ["top_k=40", "user=me", 'logit_bias={"1": 2}', "echo=true", "name=1.2.3"]
    assert body_fields(given) == {
        "top_k": 40,
        "user": "me",
        "logit_bias": {"1": 2},
        "echo": True,
        "name": "1.2.3",
    }
    assert body_fields(["x=NaN", "y=-Infinity"]) == {"x": "NaN", "y": "-Infinity"}
