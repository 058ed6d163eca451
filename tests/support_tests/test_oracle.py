"""The oracle: what makes it a proof, and that the proof can fail."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.oracle import (
    VOCABULARY,
    Message,
    Oracle,
    Plan,
    Rng,
    Sampling,
    Special,
    StopFilter,
    render,
    text_of,
)

USER = Message("user", "Tell me.")
PROMPT = render([USER])
PLAN = Plan(length=120)


def resume_from_text(oracle: Oracle, text: str, *, trim: bool = False, plan: Plan = PLAN) -> str:
    messages = [USER, Message("assistant", text)]
    prompt = render(messages, continue_final=True, trim=trim)
    return text_of(oracle.reply(prompt, plan=plan))


# --- The tokenizer --------------------------------------------------------------------------------


@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    assert VOCABULARY.decode(VOCABULARY.encode(text)).decode() == text


@given(st.binary())
def test_so_do_any_bytes(data: bytes) -> None:
    assert VOCABULARY.decode(VOCABULARY.encode(data)) == data


def test_encoding_is_greedy_and_ambiguous() -> None:
    ids = VOCABULARY.ids
    assert VOCABULARY.encode("ab") == [ids[b"ab"]]
    assert VOCABULARY.decode([ids[b"a"], ids[b"b"]]) == b"ab"
    assert VOCABULARY.encode(" abab") == [ids[b" ab"], ids[b"ab"]]


def test_some_characters_take_several_tokens() -> None:
    for text, count in {"世": 1, "猫": 2, "🙂": 1, "🚀": 3}.items():
        ids = VOCABULARY.encode(text)
        assert len(ids) == count
        assert [text_of(ids[:n]) for n in range(count)] == [""] * count
        assert text_of(ids) == text


def test_specials_are_never_text() -> None:
    assert VOCABULARY.decode(list(Special)) == b""
    assert not set(VOCABULARY.encode("<|end|><|assistant|>")) & set(Special)


# --- The model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_resume_from_ids_is_exact_at_every_cut(seed: int) -> None:
    oracle = Oracle(Rng.POSITIONAL, canonical=False)
    sampling = Sampling(temperature=0.8, seed=seed)
    full = oracle.reply(PROMPT, sampling=sampling, plan=PLAN)
    assert len(full) == 120
    for cut in range(len(full) + 1):
        rest = oracle.reply(PROMPT + full[:cut], sampling=sampling, plan=PLAN)
        assert full[:cut] + rest == full


def test_a_resume_from_text_is_exact_at_every_cut_of_a_canonical_reply() -> None:
    oracle = Oracle()
    full = oracle.reply(PROMPT, plan=PLAN)
    for cut in range(len(full) + 1):
        text = text_of(full[:cut])
        assert text + resume_from_text(oracle, text) == text_of(full)


@pytest.mark.parametrize("change", ["replace", "drop", "add"])
def test_one_wrong_token_changes_what_follows(change: str) -> None:
    oracle = Oracle()
    full = oracle.reply(PROMPT, plan=PLAN)
    wrong = list(full[:60])
    match change:
        case "replace":
            wrong[5] = VOCABULARY.ids[b"q"]
        case "drop":
            del wrong[5]
        case _:
            wrong.insert(5, VOCABULARY.ids[b"q"])
    assert oracle.reply(PROMPT + wrong, plan=PLAN)[:8] != full[60:68]


def test_text_drifts_when_the_model_is_not_canonical() -> None:
    oracle = Oracle(canonical=False)
    full = oracle.reply(PROMPT, plan=Plan(length=2000))
    assert VOCABULARY.encode(VOCABULARY.decode(full)) != full
    text = text_of(full[:1000])
    assert resume_from_text(oracle, text, plan=Plan(length=2000)) != text_of(full[1000:])


def test_text_drifts_when_the_template_trims() -> None:
    oracle = Oracle()
    full = oracle.reply(PROMPT, plan=PLAN)
    cuts = [n for n in range(1, 120) if text_of(full[:n]) != text_of(full[:n]).rstrip()]
    assert cuts
    for cut in cuts:
        text = text_of(full[:cut])
        assert text + resume_from_text(oracle, text, trim=True) != text_of(full)


def test_the_end_of_the_previous_message_is_part_of_the_prefix() -> None:
    open_, closed = (
        render([USER, Message("assistant", "x"), USER][:n], continue_final=n == 2) for n in (2, 3)
    )
    assert Special.END not in open_[-2:]
    assert closed[-1] == Special.ASSISTANT


def test_random_modes() -> None:
    def run(rng: Rng, prompt: list[int], **options: float) -> list[int]:
        sampling = Sampling(**options)  # type: ignore[arg-type]
        return Oracle(rng).reply(prompt, sampling=sampling, plan=PLAN)

    for rng in (Rng.POSITIONAL, Rng.STATEFUL):
        full = run(rng, PROMPT, seed=1)
        assert full == run(rng, PROMPT, seed=1)
        assert full != run(rng, PROMPT, seed=2)
        assert full != run(rng, PROMPT, seed=1, temperature=0.5)
        assert full != run(rng, PROMPT, seed=1, top_p=0.5)
        rest = run(rng, PROMPT + full[:50], seed=1)
        assert (rest == full[50:]) is (rng is Rng.POSITIONAL)
        assert run(rng, PROMPT, temperature=0, seed=1) == run(rng, PROMPT, temperature=0, seed=2)
    assert run(Rng.PURE, PROMPT, seed=1) == run(Rng.PURE, PROMPT, seed=2)


def test_without_a_length_the_hash_ends_the_reply() -> None:
    oracle = Oracle()
    lengths = [
        len(oracle.reply(render([Message("user", str(n))]), plan=Plan(eos_every=50)))
        for n in range(60)
    ]
    assert 20 < sum(lengths) / len(lengths) < 100
    assert len(set(lengths)) > 20


def test_planned_text_and_inserts_stand_where_they_should() -> None:
    oracle = Oracle()
    assert text_of(oracle.reply(PROMPT, plan=Plan(text="exactly 猫 this"))) == "exactly 猫 this"
    plan = Plan(length=80, inserts={30: "!!CANCEL", 50: "🚀"})
    full = oracle.reply(PROMPT, plan=plan)
    assert len(full) == 80
    assert text_of(full[30:]).startswith("!!CANCEL")
    assert text_of(full[50:]).startswith("🚀")
    for cut in range(81):
        text = text_of(full[:cut])
        assert text + resume_from_text(oracle, text, plan=plan) == text_of(full)


def test_reasoning_comes_first_and_belongs_to_the_prefix() -> None:
    oracle = Oracle()
    plan = Plan(length=30, reasoning=10)
    full = oracle.reply(PROMPT, plan=plan)
    assert (full[0], full[11]) == (Special.THINK, Special.THINK_END)
    reasoning, content = text_of(full[:11]), text_of(full[12:])

    def rest(answer: Message) -> str:
        return text_of(oracle.reply(render([USER, answer], continue_final=True), plan=plan))

    begun = text_of(full[12:20])
    assert begun + rest(Message("assistant", begun, reasoning)) == content
    assert begun + rest(Message("assistant", begun)) != content
    assert text_of(full[:6]) + rest(Message("assistant", "", text_of(full[:6]))) == (
        reasoning + content
    )


def test_replies_never_contain_what_would_hide_a_marker() -> None:
    full = Oracle(canonical=False).reply(PROMPT, plan=Plan(length=5000))
    assert "`" not in text_of(full)
    assert "\ufffd" not in text_of(full)


# --- Stop strings ---------------------------------------------------------------------------------


def test_a_stop_string_is_found_in_every_split() -> None:
    text, stops = "abc!!STOxyz!!!STOP and more", ["!!STOP", "never"]
    for _ in range(200):
        cuts = sorted(random.sample(range(len(text)), 6))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        stop = StopFilter(stops)
        sent, hit = "", False
        for piece in pieces:
            out, hit = stop.feed(piece)
            sent += out
            if hit:
                break
        assert (sent, hit) == ("abc!!STOxyz!", True)


def test_half_a_stop_string_at_the_end_is_text() -> None:
    stop = StopFilter(["STOP"])
    assert stop.feed("half a STO") == ("half a ", False)
    assert stop.flush() == "STO"
