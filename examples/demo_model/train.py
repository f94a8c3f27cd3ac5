"""Trains the demo model on the dialogues of `corpus.py`, on a CPU, and writes it as a Hugging Face folder.

    python examples/demo_model/train.py --minutes 38 --out /tmp/demo_model

needs torch, transformers and tokenizers. The folder is rewritten every few minutes, so a run can be watched,
or stopped early, without losing it. The released model took five runs (`--resume`), 67 minutes in all, on two
shared CPU cores; `README.md` tells how they differ.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from corpus import Document, Turn, documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END, USER, ASSISTANT, SYSTEM, PAD = SPECIAL_TOKENS = (
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|pad|>",
)
VOCABULARY_SIZE = 1024
TOKENIZER_DOCUMENTS = 20_000

# Dialogues longer than the short row go to long rows, so that most steps stay cheap and positions up to 1024
# are still trained. Both kinds of batch hold 1024 tokens: small batches mean many steps, which is what a
# short run needs.
SHORT_ROW, LONG_ROW = 256, 1024
TOKENS_PER_STEP = 1024

WARM_UP_STEPS = 100

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
<|assistant|>{{ message['content'] or '' }}<|end|>
{%- elif message['role'] in ('system', 'developer') -%}
<|system|>{{ message['content'] or '' }}
{%- else -%}
<|user|>{{ message['content'] or '' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""


class Example(NamedTuple):
    """A tokenised document, and how much each token counts in the loss: nothing in what the user says."""

    ids: list[int]
    weights: list[float]


class Batch(NamedTuple):
    """Rows of several examples each; no token sees another example, and each one starts at position 0."""

    ids: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor


def turn_text(turn: Turn) -> str:
    return f"{turn.question}\n{turn.answer}"


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of our own; digits stay single, so that numbers are built the same way everywhere."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        document.plain or "\n".join([document.system, *map(turn_text, document.turns)])
        for document in itertools.islice(documents(seed), TOKENIZER_DOCUMENTS)
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        model_max_length=LONG_ROW,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """1.8 million parameters. Heads are 32 wide because vLLM's attention on CPU takes no smaller ones."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=LONG_ROW,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def answer_weights(length: int) -> list[float]:
    """An answer counts as the square root of its length, or the stories would drown the sums.

    Its last two tokens count fully: one of them is where to stop, which is all that is hard about counting.
    """
    ending = min(length, 2)
    return [length**-0.5] * (length - ending) + [1.0] * ending


def tokenize(document: Document, tokenizer: PreTrainedTokenizerFast) -> Example:
    """The document as the chat template would write it."""
    encode = tokenizer.backend_tokenizer.encode
    if document.plain:
        text = encode(f"{document.plain}{END}").ids
        return Example(text, answer_weights(len(text)))
    ids: list[int] = encode(f"{SYSTEM}{document.system}").ids if document.system else []
    weights = [0.0] * len(ids)
    for turn in document.turns:
        question = encode(f"{USER}{turn.question}{ASSISTANT}").ids
        answer = encode(f"{turn.answer}{END}").ids
        ids += question + answer
        weights += [0.0] * len(question) + answer_weights(len(answer))
    return Example(ids, weights)


def pack(rows: list[list[Example]], length: int) -> Batch:
    """Puts each list of examples into one row, cutting what sticks out at its end."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    positions = torch.zeros_like(ids)
    owners = torch.zeros_like(ids)
    for row, examples in enumerate(rows):
        start = 0
        for number, example in enumerate(examples):
            end = min(start + len(example.ids), length)
            ids[row, start:end] = torch.tensor(example.ids[: end - start])
            weights[row, start:end] = torch.tensor(example.weights[: end - start])
            weights[row, start] = 0  # the token before it belongs to another example
            positions[row, start:end] = torch.arange(end - start)
            owners[row, start:end] = number
            start = end
    same_example = owners[:, None, :, None] == owners[:, None, None, :]
    mask = same_example & torch.ones(length, length, dtype=torch.bool).tril()
    return Batch(ids, weights, positions, mask)


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Endless batches. An example that a full row cuts off also begins the next one, so no ending is rare."""
    waiting: dict[int, list[list[Example]]] = {SHORT_ROW: [[]], LONG_ROW: [[]]}
    for document in documents(seed):
        example = tokenize(document, tokenizer)
        length = SHORT_ROW if len(example.ids) < SHORT_ROW else LONG_ROW
        rows = waiting[length]
        rows[-1].append(example)
        filled = sum(len(part.ids) for part in rows[-1])
        if filled < length:
            continue
        if len(rows) * length == TOKENS_PER_STEP:
            yield pack(rows, length)
            rows.clear()
        rows.append([example] if filled > length > len(example.ids) else [])


def rate_factor(step: int, progress: float) -> float:
    """Linear warm-up, then a cosine over the time that the run has, down to a hundredth of the peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return min(1, (step + 1) / WARM_UP_STEPS) * (0.01 + 0.99 * cosine)


def weighted_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    weights = batch.weights[:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
    )
    return (losses * weights).sum() / weights.sum()


def build_optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    gains = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the folder file by file through renames: a reader never finds half a file."""
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        for path in Path(fresh).iterdir():
            path.chmod(0o644)  # safetensors writes for the owner only, and a package is read by others
            os.replace(path, out / path.name)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace) -> None:
    optimizer = build_optimizer(model)
    forward = torch.compile(model, dynamic=False) if options.compile else model
    started = saved = time.monotonic()
    seconds, average = options.minutes * 60, math.nan
    for step, batch in enumerate(batches(tokenizer, options.seed + 1)):
        elapsed = time.monotonic() - started
        if elapsed > seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate_factor(step, elapsed / seconds)
        output = forward(input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False)
        loss = weighted_loss(output.logits, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if step % 100 == 0:
            rate = (step + 1) * TOKENS_PER_STEP / (time.monotonic() - started)
            print(f"step {step}  {elapsed:.0f} s  loss {average:.3f}  {rate:.0f} tokens/s", flush=True)
        if time.monotonic() - saved > options.save_every * 60:
            save(model, tokenizer, options.out)
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=38.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="go on with the model in this folder")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at its peak")
    parser.add_argument("--save-every", type=float, default=3.0, help="minutes between checkpoints")
    parser.add_argument("--compile", action="store_true", help="a third faster; needs a C++ compiler")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    if options.resume:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.resume)
        model = LlamaForCausalLM.from_pretrained(options.resume)
    else:
        tokenizer = build_tokenizer(options.seed)
        model = build_model(tokenizer)
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters", flush=True)
    train(model, tokenizer, options)
    save(model, tokenizer, options.out)


if __name__ == "__main__":
    main()
