"""Conversations: what the model reads is what the template writes, and every token is told whose it is, or refused."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from cases import HAS_HOOKED, make
from chat_templates import TEMPLATES, tokenizer, written
from hypothesis import given, settings
from transformers.convert_slow_tokenizer import bytes_to_unicode

import tl_jacobian as tj
from tl_jacobian.core.chat import Message, cut_off, read_answered, read_conversation
from tl_jacobian.core.host.transformer_lens import TransformerLensHost
from tl_jacobian.core.prompts import Read, is_batch, read_prompt
from tl_jacobian.errors import ArgumentError, PromptError

SYSTEM, USER, ANSWER = (
    {"role": role, "content": text} for role, text in (("system", "Be terse."), ("user", "Hi"), ("assistant", "Ho"))
)


@pytest.fixture(autouse=True)
def _messages_of_the_library(unchecked):
    """The library's own messages, not beartype's."""


def host(name: str = "chatml", template: str | None = None) -> Any:
    """As much of a host as a conversation needs."""
    made = copy.copy(tokenizer(name))
    made.chat_template = template or TEMPLATES[name]
    return TransformerLensHost(
        SimpleNamespace(tokenizer=made, cfg=SimpleNamespace(n_ctx=None), W_U=torch.zeros(2, 999))
    )


def as_dicts(said: list[Message]) -> list[dict[str, str]]:
    return [message._asdict() for message in said]


def owners(found: Any, said: list[Message]) -> list[int | None]:
    """The message of each token, from the regions."""
    seen: dict[str, int] = {}
    names = {}
    for i, message in enumerate(said):
        seen[message.role] = seen.get(message.role, 0) + 1
        names[f"{message.role} {seen[message.role]}"] = i
    told = {at: names.get(region.name) for region in found.regions["messages"] for at in region.positions}
    by_role = {at: region.name for region in found.regions["roles"] for at in region.positions}
    whose = [told[at] for at in range(len(found.tokens))]
    assert [by_role[at] for at in range(len(whose))] == ["template" if i is None else said[i].role for i in whose]
    return whose


def naive_owners(name: str, tokens: list[int], said: list[Message]) -> tuple[str, list[int | None]]:
    """The same from the template said by hand and the bytes of each token."""
    characters = written(name, said)
    text = "".join(char for char, _ in characters)
    at_byte = [i for i, (char, _) in enumerate(characters) for _ in char.encode()]
    to_byte = {char: byte for byte, char in bytes_to_unicode().items()}
    whose, start = [], 0
    for piece, special in (
        (tokenizer(name).convert_ids_to_tokens(t), t in tokenizer(name).added_tokens_decoder) for t in tokens
    ):
        length = len(piece.encode() if special else bytes(to_byte[c] for c in piece))
        covered = list(dict.fromkeys(at_byte[start : start + length]))
        first = next((i for i in covered if not text[i].isspace()), covered[0])
        whose.append(characters[first][1])
        start += length
    assert start == len(at_byte)
    return text, whose


PIECES = [
    "yes",
    "user",
    "assistant\n",
    " ",
    "\n",
    "\n\n",
    "\t",
    ".",
    "🦜",
    "é",
    "ש",
    "<|im_end|>",
    "<|im_start|>user\n",
    "[/INST]",
    "</s>",
    "<end_of_turn>",
    "</think>",
    "<<SYS>>",
    "\u200b",
    "{{ x }}",
    "ﷺ",
    "\U000f0000",
]
CONTENTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@st.composite
def conversations(draw: Any, system: bool) -> list[Message]:
    turns = draw(st.integers(0, 2)) * 2 + 1
    first = [Message("system", draw(CONTENTS))] if system and draw(st.booleans()) else []
    return first + [Message(("user", "assistant")[i % 2], draw(CONTENTS)) for i in range(turns)]


@pytest.mark.filterwarnings("ignore:the chat template leaves message")
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_token_is_told_whose_it_is(name, data):
    said = data.draw(conversations(system=name != "gemma"))
    found = read_conversation(host(name), as_dicts(said))
    text, whose = naive_owners(name, found.tokens, said)
    theirs = tokenizer(name).apply_chat_template(as_dicts(said), add_generation_prompt=True, tokenize=False)
    assert text == theirs  # what is said by hand is what the template writes
    assert found.tokens == tokenizer(name).apply_chat_template(
        as_dicts(said), add_generation_prompt=True, return_dict=False
    )
    assert owners(found, said) == whose


def said_by(found: Any, name: str = "chatml") -> dict[str, str]:
    """The text of each message's tokens."""
    return {
        region.name: tokenizer(name).decode([found.tokens[at] for at in region.positions])
        for region in found.regions["messages"]
    }


def test_what_stands_more_than_once_is_told_apart():
    yes = [Message(role, "yes") for role in ("user", "assistant", "user")]
    found = read_conversation(host(), as_dicts(yes))
    assert list(said_by(found)) == ["user 1", "assistant 1", "user 2", "template"]
    assert [said_by(found)[name] for name in ("user 1", "assistant 1", "user 2")] == ["yes"] * 3
    assert said_by(found)["template"].startswith("<|im_start|>system\nYou are a helpful AI assistant")


def test_a_system_prompt_inside_the_turn_of_the_user_stays_the_systems():
    found = read_conversation(
        host("mistral"), [SYSTEM, USER]
    )  # whose last token is ".\n\n", and begins as the system's
    assert said_by(found, "mistral") == {"system 1": "Be terse.\n\n", "user 1": "Hi", "template": "<s>[INST] [/INST]"}


def test_a_content_written_twice_is_the_messages_both_times():
    twice = "{% for m in messages %}{{ '<|user|>' + m.content + '<|end|>' + m.content }}{% endfor %}"
    found = read_conversation(host(template=twice), [{"role": "user", "content": "a b"}])
    assert said_by(found) == {"user 1": "a ba b", "template": "<|user|><|end|>"}


def test_reasoning_that_is_left_out_isnt_the_answers():
    thought = {"role": "assistant", "content": "<think>\nwell, well " + "hm " * 2000 + "\n</think>\n\nHo ho"}
    found = read_conversation(host("reasoning"), [USER, thought, USER])
    assert said_by(found)["assistant 1"] == "Ho ho"


def test_parts_of_text_are_one_text():
    parts = [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]
    whole = read_conversation(host(), [{"role": "user", "content": "Hello"}])
    assert read_conversation(host(), [{"role": "user", "content": parts, "name": None}]) == whole
    assert read_prompt(host(), ({"role": "user", "content": "Hello"},), [-1], None).regions == whole.regions


def test_a_message_that_the_template_leaves_out_is_said_to_be():
    users = "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content }}{% endif %}{% endfor %}"
    with pytest.warns(UserWarning, match=r"leaves message 0 \('system'\) out"):
        found = read_conversation(host(template=users), [SYSTEM, USER])
    assert said_by(found) == {"user 1": "Hi", "template": "<|user|>"}


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([USER, "Hi"], r"message 1 is 'Hi', expected \{\"role\": \"user\""),
        ([{"content": "Hi"}], "message 0 has the role None"),
        ([{"role": "", "content": "Hi"}], "message 0 has the role ''"),
        ([{"role": "template", "content": "Hi"}], "is what the template's own tokens are called"),
        ([{"role": "user"}], "message 0 has the content None, expected text"),
        ([{"role": "user", "content": 3}], "content 3"),
        ([{"role": "user", "content": [{"type": "image", "url": "a.png"}]}], "part of type 'image'.*only text"),
        ([{"role": "user", "content": ["Hi"]}], "part of type 'str'"),
        ([{"role": "user", "content": "Hi", "tool_calls": [1]}], "message 0 has 'tool_calls', which aren't read"),
        ([{"role": "user", "content": "\ud800"}], "half a surrogate pair"),
        ([USER, ANSWER], r"the last of the 2 messages is the assistant's.*messages\[:-1\]"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:60],
)
def test_what_isnt_a_conversation_is_refused(messages, why):
    with pytest.raises(PromptError, match=why):
        read_prompt(host(), messages, [-1], None)


def test_bos_is_the_templates_alone():
    with pytest.raises(PromptError, match="prepend_bos=False is for text"):
        read_prompt(host("llama 3"), [USER], [-1], False)
    tokens = read_prompt(host("llama 3"), [USER], [-1], None).tokens
    assert [at for at, token in enumerate(tokens) if token == tokenizer("llama 3").bos_token_id] == [0]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ m.content | tojson }}{% endfor %}",
        "{% for m in messages %}{{ m.content[:1] }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content | length }}{% endfor %}",
        "{% for m in messages %}{{ m.content.replace(' ', '') }}{% endfor %}",
    ],
)
def test_a_content_that_is_rewritten_is_refused(template):
    with pytest.raises(PromptError, match=r"can't be told which part of the text is message 0 \('a \"b'\)"):
        read_conversation(host(template=template), [{"role": "user", "content": 'a "b'}])


def test_templates_that_refuse_and_that_arent_there():
    with pytest.raises(PromptError, match="refuses these messages: System role not supported"):
        read_conversation(host("gemma"), [SYSTEM, USER])
    bare = host()
    bare.model.tokenizer.chat_template = None
    with pytest.raises(PromptError, match=r"has no chat template.*set model\.tokenizer.chat_template"):
        read_conversation(bare, [USER])
    bare.model.tokenizer = None
    with pytest.raises(PromptError, match="can't be tokenised: this model has no tokenizer"):
        read_conversation(bare, [USER])


def test_other_ids_than_those_of_the_text_are_refused(monkeypatch):
    odd = host()
    monkeypatch.setattr(odd, "chat_ids", lambda messages, add_generation_prompt: [1])
    with pytest.raises(PromptError, match="gives other token ids than its text does"):
        read_conversation(odd, [USER])


def test_a_list_of_conversations_is_a_batch_and_one_isnt():
    assert not any(map(is_batch, ([USER], (USER, ANSWER), [USER, "Hi"])))
    assert all(map(is_batch, ([[USER], [SYSTEM, USER]], [[USER], "Hi", [1, 2]])))


def test_an_answer_that_is_there():
    prompt, answer, regions = read_answered(host(), [SYSTEM, USER, ANSWER])
    assert prompt == read_conversation(host(), [SYSTEM, USER]).tokens
    assert tokenizer("chatml").decode(answer) == "Ho"
    at = {region.name: region.positions for region in regions["messages"]}
    assert at["assistant 1"] == tuple(range(len(prompt), len(prompt) + len(answer)))
    assert sorted(i for positions in at.values() for i in positions) == list(range(len(prompt) + len(answer)))


def test_an_answer_that_the_model_would_never_be_asked_for_so():
    asks_so = TEMPLATES["chatml"].replace("<|im_start|>assistant", "<|im_start|>assistant (think first)")
    with pytest.raises(PromptError, match=r"otherwise than it asks for it.*messages\[:-1\]"):
        read_answered(host(template=asks_so), [USER, ANSWER])
    with pytest.raises(PromptError, match="has the role 'user', expected the assistant's"):
        read_answered(host(), [ANSWER, USER])
    with pytest.raises(PromptError, match="has no tokens, expected an answer"):
        read_answered(host(), [USER, {"role": "assistant", "content": ""}])


def test_regions_are_cut_off_with_the_tokens():
    found = read_prompt(host(), [SYSTEM, USER], [3], None)
    whole = read_prompt(host(), [SYSTEM, USER], [-1], None)
    assert found == Read(whole.tokens[:4], [3], whole.regions)
    assert all(at < 4 for region in cut_off(whole.regions, 4)["roles"] for at in region.positions)


SHORT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<>"


@pytest.fixture(scope="module", params=["hooked", "bridge"] if HAS_HOOKED else ["bridge"])
def model(request):
    made = make("llama", request.param)
    made.tokenizer = copy.copy(made.tokenizer)
    made.tokenizer.chat_template = SHORT
    return made


def test_roles_and_messages_of_an_attribution(model, tmp_path):
    messages = [SYSTEM, USER, {**ANSWER, "content": "Ho"}, {**USER, "content": "Hi"}]
    lin = tj.linearize(model, messages)
    text = tj.linearize(model, "<system>Be terse.<user>Hi<assistant>Ho<user>Hi<>", prepend_bos=False)
    assert lin.tokens.tolist() == text.tokens.tolist()
    a, plain = tj.semantic_scope(lin), tj.semantic_scope(text)
    assert torch.equal(a.scores, plain.scores)
    assert plain.regions == {}
    for found, names in (
        (a.roles(), ("system", "user", "assistant", "template")),
        (a.messages(), ("system 1", "user 1", "assistant 1", "user 2", "template")),
    ):
        assert found.str_tokens == names
        joint = [plain.scores[list(unit)].double().square().sum().sqrt().item() for unit in found.units]
        assert found.scores.tolist() == pytest.approx(joint, rel=1e-6)
        assert sorted(at for unit in found.units for at in unit) == list(range(len(a)))
        found.save(tmp_path / "a.json")
        assert tj.Attribution.load(tmp_path / "a.json") == found
    assert "".join(a.str_tokens[at] for at in a.roles().units[1]) == "HiHi"
    with pytest.raises(ArgumentError, match=r"knows no roles: give linearize\(\) the prompt as messages"):
        plain.roles()


def test_positions_and_batches(model):
    alone, other = tj.linearize(model, [SYSTEM, USER]), tj.linearize(model, [USER])
    batch = tj.linearize(model, [[SYSTEM, USER], [USER]])
    assert [one.regions for one in batch] == [alone.regions, other.regions]
    early = tj.semantic_scope(tj.linearize(model, [SYSTEM, USER], position=10))
    assert early.roles().units == ((8, 9, 10), (0, 1, 2, 3, 4, 5, 6, 7))
    several = tj.linearize(model, [SYSTEM, USER], position=[10, -1])
    assert several[0].regions == early.regions
    assert several[1].regions == alone.regions


def test_rows_of_maps_know_whose_tokens_are(model):
    m = tj.attribution_map(model, [USER])
    assert m[-1].regions == tj.semantic_scope(tj.linearize(model, [USER])).regions
    n = len(m[-1].tokens)
    written_by_itself = tj.attribute_generation(model, [USER], 3)
    assert written_by_itself[-1].messages().units[1] == (n, n + 1)
    assert written_by_itself[-1].messages().str_tokens == ("user 1", "assistant 1", "template")
    assert "assistant" not in written_by_itself[0].roles().str_tokens
