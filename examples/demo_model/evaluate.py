"""Asks the demo model questions that were kept out of its training and prints how many answers are right.

    python examples/demo_model/evaluate.py                  # through vLLM
    python examples/demo_model/evaluate.py --transformers   # through transformers, where there is no vLLM

An answer counts only if it is the expected text, to the letter, and ends by itself. Stories have no expected
text: they count if they are well formed (see `flaws_of_story`). Decoding is greedy.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import words
from corpus import TOPICS, Turn, held_out_turns, without_article

STORY_TOPICS = {"stories": 2, "long stories": 4}  # and how many characters such a story has
MAX_TOKENS = 700  # the longest right answer, counting from 1 to 100, takes about 400
MODEL_LENGTH = 1024
KV_CACHE_BYTES = 256 << 20  # without an explicit size vLLM measures for seconds and takes gigabytes
BATCH_SIZE = 50  # for transformers only; vLLM batches by itself

Message = dict[str, str]


class Question(NamedTuple):
    topic: str
    turn: Turn

    def messages(self) -> list[Message]:
        """The dialogue up to the point where the model has to answer."""
        past = [
            message
            for turn in self.turn.history
            for message in (
                {"role": "user", "content": turn.question},
                {"role": "assistant", "content": turn.answer},
            )
        ]
        return [*past, {"role": "user", "content": self.turn.question}]


class Answer(NamedTuple):
    text: str
    ended: bool  # by itself, not by the limit on its length


def held_out_questions(count: int, seed: int) -> list[Question]:
    """The same number from each topic, as long as the topic has that many."""
    drawn = [
        [Question(topic, turn) for turn in held_out_turns(topic, 2 * count // len(TOPICS) + 1, seed)]
        for topic in TOPICS
    ]
    in_turns = chain.from_iterable(zip_longest(*drawn))
    return list(islice((question for question in in_turns if question), count))


def ask_vllm(model: Path, questions: list[Question]) -> list[Answer]:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # idle OpenMP threads spin, and so take time from the others
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=MODEL_LENGTH,
        kv_cache_memory_bytes=KV_CACHE_BYTES,
    )
    outputs = engine.chat(
        [question.messages() for question in questions],
        SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS),
        use_tqdm=False,
    )
    return [Answer(output.outputs[0].text, output.outputs[0].finish_reason == "stop") for output in outputs]


def ask_transformers(model: Path, questions: list[Question]) -> list[Answer]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    answers = []
    for start in range(0, len(questions), BATCH_SIZE):
        inputs = tokenizer.apply_chat_template(
            [question.messages() for question in questions[start : start + BATCH_SIZE]],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            rows = network.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        for row in rows[:, inputs["input_ids"].shape[1] :].tolist():
            text = tokenizer.decode(row, skip_special_tokens=True)
            answers.append(Answer(text, tokenizer.eos_token_id in row))
    return answers


def flaws_of_story(question: Question, answer: Answer) -> list[str]:
    """What is wrong with a story: its subject, its end, its characters or the thing it is about."""
    asked = question.turn.question.removesuffix(".").removesuffix("?").split()
    subject = next((animal for animal in words.ANIMALS if animal in asked), r"\w+")
    name = asked[-1] if "named" in asked else r"\w+"
    beginning = re.match(rf"Once upon a time there was an? \w+ {subject} named ({name})\. ", answer.text)
    if not beginning:
        return ["does not begin with who was asked for"]
    flaws = []
    if not answer.ended or answer.text[-1] not in '."':
        flaws.append("does not end")
    known = {*words.NAMES, beginning[1]}
    characters = {word for word in re.findall(r"[A-Z][a-z]+", answer.text) if word in known}
    if len(characters) != STORY_TOPICS[question.topic]:
        flaws.append(f"has the characters {', '.join(sorted(characters))}")
    if sum(without_article(thing) in answer.text for thing in words.THINGS) != 1:
        flaws.append("is not about one thing")
    if answer.text.count('"') % 2:
        flaws.append("leaves a quotation open")
    return flaws


def is_right(question: Question, answer: Answer) -> bool:
    if question.topic in STORY_TOPICS:
        return not flaws_of_story(question, answer)
    return answer.ended and answer.text == question.turn.answer


def print_table(questions: list[Question], answers: list[Answer]) -> None:
    asked = Counter(question.topic for question in questions)
    right = Counter(q.topic for q, answer in zip(questions, answers, strict=True) if is_right(q, answer))
    print("| Topic | Right | Asked |\n|---|---:|---:|")
    for topic in TOPICS:
        print(f"| {topic} | {right[topic]} | {asked[topic]} |")
    print(f"| **total** | **{right.total()}** | **{asked.total()}** |")
    print(f"\n{100 * right.total() / asked.total():.1f} % right")


def print_mistakes(questions: list[Question], answers: list[Answer], limit: int) -> None:
    pairs = zip(questions, answers, strict=True)
    wrong = [(question, answer) for question, answer in pairs if not is_right(question, answer)]
    for question, answer in wrong[:limit]:
        story = question.topic in STORY_TOPICS
        expected = "; ".join(flaws_of_story(question, answer)) if story else question.turn.answer
        print(f"\n{question.turn.question}\n  got:      {answer.text}\n  expected: {expected}")


def print_samples(questions: list[Question], answers: list[Answer]) -> None:
    """The first answer to each topic, right or wrong."""
    first: dict[str, tuple[Question, Answer]] = {}
    for question, answer in zip(questions, answers, strict=True):
        first.setdefault(question.topic, (question, answer))
    for question, answer in first.values():
        print(f"\n{question.turn.question}\n  {answer.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transformers", action="store_true", help="use transformers instead of vLLM")
    parser.add_argument("--mistakes", type=int, default=5, help="how many wrong answers to show")
    options = parser.parse_args()
    questions = held_out_questions(options.questions, options.seed)
    ask = ask_transformers if options.transformers else ask_vllm
    answers = ask(options.model, questions)
    print_table(questions, answers)
    print("\nSamples:")
    print_samples(questions, answers)
    print("\nMistakes:")
    print_mistakes(questions, answers, options.mistakes)


if __name__ == "__main__":
    main()
