"""Chat templates as models publish them, and a tokenizer that has their special tokens and real merges of spaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tl_jacobian.core.chat import Message

CHATML = (  # SmolLM2: a system prompt of its own, where none is given
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (  # trims, and puts BOS in front of the first message
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_3_1 = (  # an extra system message with dates, into which the caller's goes
    "{{- bos_token }}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|"
    'trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = "" %}\n{%- endif %}\n'
    '{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}\n{{- "Cutting Knowledge Date: December 2023\\n" }}\n'
    '{{- "Today Date: 26 Jul 2024\\n\\n" }}\n{{- system_message }}\n{{- "<|eot_id|>" }}\n{%- for message in '
    "messages %}\n    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | "
    "trim + '<|eot_id|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
)
GEMMA = (  # refuses a system prompt, trims, calls the assistant "model"
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA_3 = (  # puts the system prompt in front of the first user message
    "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if messages[0]['content'] is string -%}\n"
    "        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n    {%- else -%}\n        {%- set "
    "first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}\n    {%- endif -%}\n    {%- set loop_messages "
    '= messages[1:] -%}\n{%- else -%}\n    {%- set first_user_prefix = "" -%}\n    {%- set loop_messages = messages '
    "-%}\n{%- endif -%}\n{%- for message in loop_messages -%}\n    {%- if (message['role'] == 'user') != (loop.index0 "
    '% 2 == 0) -%}\n        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") '
    "}}\n    {%- endif -%}\n    {%- if (message['role'] == 'assistant') -%}\n        {%- set role = \"model\" -%}\n    "
    "{%- else -%}\n        {%- set role = message['role'] -%}\n    {%- endif -%}\n    {{ '<start_of_turn>' + role + "
    "'\n' + (first_user_prefix if loop.first else \"\") }}\n    {%- if message['content'] is string -%}\n        {{ "
    "message['content'] | trim }}\n    {%- endif -%}\n    {{ '<end_of_turn>\n' }}\n{%- endfor -%}\n{%- if "
    "add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n"
)
MISTRAL = (  # no header for the assistant; the system prompt, if any, begins the last user message
    '{%- if messages[0]["role"] == "system" %}\n    {%- set system_message = messages[0]["content"] %}\n    {%- set '
    "loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n{{- "
    "bos_token }}\n{%- for message in loop_messages %}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == "
    "0) %}\n        {{- raise_exception('After the optional system message, conversation roles must alternate "
    "user/assistant/user/assistant/...') }}\n    {%- endif %}\n    {%- if message['role'] == 'user' %}\n        {%- if "
    "loop.last and system_message is defined %}\n            {{- '[INST] ' + system_message + '\\n\\n' + "
    "message['content'] + '[/INST]' }}\n        {%- else %}\n            {{- '[INST] ' + message['content'] + '[/INST]'"
    " }}\n        {%- endif %}\n    {%- elif message['role'] == 'assistant' %}\n        {{- ' ' + message['content'] + "
    "eos_token}}\n    {%- endif %}\n{%- endfor %}\n"
)
PHI_3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif "
    "message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA_2 = (  # the system prompt inside the first user message; trims, and adds spaces
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
REASONING = (  # as Qwen 3 and DeepSeek R1 do: the reasoning of earlier answers isn't shown again
    "{% for message in messages %}{% set content = message.content %}{% if message.role == 'assistant' and '</think>' "
    "in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '<|im_start|>' + "
    "message.role + '\n' + content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama 3": LLAMA_3,
    "llama 3.1": LLAMA_3_1,
    "gemma": GEMMA,
    "gemma 3": GEMMA_3,
    "mistral": MISTRAL,
    "phi 3": PHI_3,
    "llama 2": LLAMA_2,
    "reasoning": REASONING,
}


# What each of them writes, said once more by hand: characters, and the message that each belongs to (None: its own).
Characters = list[tuple[str, int | None]]


def own(text: str) -> Characters:
    return [(char, None) for char in text]


def of(message: Message, i: int) -> Characters:
    return [(char, i) for char in message.content]


def stripped(characters: Characters) -> Characters:
    kept = [at for at, (char, _) in enumerate(characters) if not char.isspace()]
    return characters[kept[0] : kept[-1] + 1] if kept else []


def written(name: str, said: Sequence[Message]) -> Characters:
    """The conversation, generation prompt included."""
    return [one for piece in _WRITERS[name](list(enumerate(said))) for one in piece]


Numbered = list[tuple[int, Message]]


def _turns(said: Numbered, head: str, tail: str, ask: str, trims: bool) -> Iterator[Characters]:
    for i, m in said:
        role = "model" if (m.role, "of_turn" in head) == ("assistant", True) else m.role
        yield own(head.replace("ROLE", role))
        yield stripped(of(m, i)) if trims else of(m, i)
        yield own(tail)
    yield own(ask)


def _chatml(said: Numbered) -> Iterator[Characters]:
    if said[0][1].role != "system":
        default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        yield own(f"<|im_start|>system\n{default}<|im_end|>\n")
    yield from _turns(said, "<|im_start|>ROLE\n", "<|im_end|>\n", "<|im_start|>assistant\n", trims=False)


_LLAMA = ("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>")
_LLAMA_ASKS = "<|start_header_id|>assistant<|end_header_id|>\n\n"


def _llama_3(said: Numbered) -> Iterator[Characters]:
    yield own("<s>")
    yield from _turns(said, *_LLAMA, _LLAMA_ASKS, trims=True)


def _llama_3_1(said: Numbered) -> Iterator[Characters]:
    yield own("<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n")
    yield own("Today Date: 26 Jul 2024\n\n")
    if said[0][1].role == "system":
        yield stripped(of(said[0][1], said[0][0]))
        said = said[1:]
    yield own("<|eot_id|>")
    yield from _turns(said, *_LLAMA, _LLAMA_ASKS, trims=True)


def _gemma(said: Numbered) -> Iterator[Characters]:
    yield own("<s>")
    yield from _turns(said, "<start_of_turn>ROLE\n", "<end_of_turn>\n", "<start_of_turn>model\n", trims=True)


def _gemma_3(said: Numbered) -> Iterator[Characters]:
    if said[0][1].role != "system":
        yield from _gemma(said)
        return
    yield own("<s><start_of_turn>user\n")
    yield of(said[0][1], said[0][0])
    yield own("\n\n")
    yield from list(_gemma(said[1:]))[2:]


def _mistral(said: Numbered) -> Iterator[Characters]:
    yield own("<s>")
    system = [said.pop(0)] if said[0][1].role == "system" else []
    for i, m in said:
        user = m.role == "user"
        yield own("[INST] " if user else " ")
        if (i, m) == said[-1]:
            yield from (part for at, s in system for part in (of(s, at), own("\n\n")))
        yield of(m, i)
        yield own("[/INST]" if user else "</s>")


def _phi_3(said: Numbered) -> Iterator[Characters]:
    yield from _turns(said, "<|ROLE|>\n", "<|end|>\n", "<|assistant|>\n", trims=False)


def _llama_2(said: Numbered) -> Iterator[Characters]:
    system = [said.pop(0)] if said[0][1].role == "system" else []
    for i, m in said:
        content = of(m, i)
        for at, s in system:
            content = [*own("<<SYS>>\n"), *of(s, at), *own("\n<</SYS>>\n\n"), *content]
        system = []
        user = m.role == "user"
        yield [*own("<s>[INST] " if user else " "), *stripped(content), *own(" [/INST]" if user else " </s>")]


def _reasoning(said: Numbered) -> Iterator[Characters]:
    for i, m in said:
        content, end = of(m, i), m.content.rfind("</think>")
        if m.role == "assistant" and end >= 0:
            content = content[end + len("</think>") :]
            while content[:1] == [("\n", i)]:
                content.pop(0)
        yield [*own(f"<|im_start|>{m.role}\n"), *content, *own("<|im_end|>\n")]
    yield own("<|im_start|>assistant\n")


_WRITERS = {
    "chatml": _chatml,
    "llama 3": _llama_3,
    "llama 3.1": _llama_3_1,
    "gemma": _gemma,
    "gemma 3": _gemma_3,
    "mistral": _mistral,
    "phi 3": _phi_3,
    "llama 2": _llama_2,
    "reasoning": _reasoning,
}
_SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
]


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Byte-level, merging across words, spaces and marks, so that tokens straddle messages and template."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(
        ["user\n\nyes\n\n yes. </s>assistant\n", "yes.\n", "  yes\n\n", "?\n", ".\n\n"] * 9, trainer
    )
    raw.add_special_tokens([AddedToken(text, normalized=False) for text in ("<s>", "</s>", *_SPECIAL)])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", add_bos_token=True)
    made.chat_template = TEMPLATES[name]
    return made
