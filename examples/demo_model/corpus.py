"""Corpus of the demo model: short dialogues made from templates, with a held-out part for the evaluation.

A topic is a function that draws one `Turn` (a question and its right answer) from a random generator. The
same seed gives the same dialogues. `is_held_out` decides by a hash of what is asked, never by chance, whether
a turn belongs to training or to evaluation, so the two can never share a question.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import words

HELD_OUT_SHARE = 0.1
# Chosen before training so that what people try first ("Hello", "Who are you?") is among what is trained.
HELD_OUT_SALT = "mesh-9"
SYSTEM_SHARE = 0.12  # dialogues that begin with a system text, to learn that it does not matter
PLAIN_STORY_SHARE = 0.04  # documents without roles, so that a bare "Once upon a time" goes on as a story
PLAIN_ANSWER_SHARE = 0.03  # a question without roles, directly followed by its answer
MADE_UP_SHARE = 0.15  # names and words that must be copied without knowing them
# How many turns a dialogue has, and how often. The long ones teach the positions up to about 1000.
TURN_COUNTS = (1, 2, 3, 5, 12)
TURN_WEIGHTS = (66, 18, 11, 4, 1)

Random = random.Random


class Turn(NamedTuple):
    """A question, its answer, and what was said before.

    `fact` names what must be new in evaluation where a new wording alone would be too easy: the sum of two
    numbers, for instance, is held out in all its wordings.
    """

    question: str
    answer: str
    fact: str = ""
    history: tuple[Turn, ...] = ()


class Document(NamedTuple):
    """One training text: a dialogue, or plain text if there are no turns."""

    turns: tuple[Turn, ...] = ()
    system: str = ""
    plain: str = ""


def is_held_out(turn: Turn) -> bool:
    """Whether the turn is kept out of training."""
    digest = hashlib.sha256((HELD_OUT_SALT + (turn.fact or turn.question)).encode()).digest()
    return int.from_bytes(digest[:4]) < HELD_OUT_SHARE * 2**32


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def without_article(noun: str) -> str:
    return noun.split(" ", 1)[1]


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def made_up_word(rng: Random) -> str:
    """A word nobody has seen: copying it takes looking it up in the question, not memory."""
    syllables = [rng.choice("bdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3)))]
    return "".join(syllables) + rng.choice(("", "", "n", "l", "r", "s", "k"))


def any_name(rng: Random) -> str:
    return made_up_word(rng).capitalize() if rng.random() < MADE_UP_SHARE else rng.choice(words.NAMES)


def any_word(rng: Random) -> str:
    return made_up_word(rng) if rng.random() < MADE_UP_SHARE else rng.choice(words.WORDS)


# --- stories ---


def opening(rng: Random, animal: str, hero: str, homes: tuple[str, ...] = words.PLACES) -> list[str]:
    return [
        f"Once upon a time there was {with_article(rng.choice(words.MOODS))} {animal} named {hero}.",
        f"{hero} lived near {rng.choice(homes)}.",
    ]


def story_text(rng: Random, animal: str, hero: str) -> str:
    """Six sentences about a lost thing that finds its owner."""
    friend = rng.choice([name for name in words.FRIEND_NAMES if name != hero])
    friend_animal = rng.choice([other for other in words.ANIMALS if other != animal])
    thing = rng.choice(words.THINGS)
    it = f"the {without_article(thing)}"
    feeling = rng.choice(words.FEELINGS)
    found = (
        f"One morning {hero} found {thing} in the grass.",
        f"One evening {hero} saw {thing} under a tree.",
        f"One day {hero} found {thing} by the road.",
    )
    owner = (
        f"It belonged to {with_article(friend_animal)} named {friend}.",
        f'"Whose is it?" asked {hero}. "It is mine," said {with_article(friend_animal)} named {friend}.',
    )
    given = (f"{hero} gave {it} back at once.", f"{hero} carried {it} all the way to {friend}.")
    thanks = (
        f"{friend} was so {feeling} that they became friends.",
        f"{friend} felt {feeling} and shared a warm supper with {hero}.",
    )
    end = (
        f"From then on {hero} and {friend} met every day.",
        f"And {hero} the {animal} slept well that night.",
    )
    return " ".join([*opening(rng, animal, hero), *map(rng.choice, (found, owner, given, thanks, end))])


def journey_text(rng: Random, animal: str, hero: str) -> str:
    """A long story: a search at three places, with one meeting at each of them.

    Each place in the story has words of its own. Were they drawn without repetition from one list, a model that
    always takes the likeliest word would take the same one each time.
    """
    thing = rng.choice(words.THINGS)
    it = f"the {without_article(thing)}"
    first, second, third = (rng.choice(words.PLACES[stop::4]) for stop in (1, 2, 3))
    others = [rng.choice([other for other in words.ANIMALS[stop::3] if other != animal]) for stop in range(3)]
    names = [rng.choice(words.FRIEND_NAMES[stop::3]) for stop in range(3)]
    sentences = [
        *opening(rng, animal, hero, words.PLACES[::4]),
        f"Every night {hero} dreamed of {thing}.",
        f'"Somewhere it must be," said {hero}, and one morning the {animal} set out to find it.',
        f"First {hero} came to {first}. There sat {with_article(others[0])} named {names[0]}.",
        f'"Have you seen {thing}?" asked {hero}. "No," said {names[0]}, "but I will come with you."',
        f"So {hero} and {names[0]} walked on together.",
        f"Then they came to {second}. There sat {with_article(others[1])} named {names[1]}.",
        f'"Have you seen {thing}?" asked {hero}. "No," said {names[1]}, "but I can carry your bag."',
        f"So {hero}, {names[0]} and {names[1]} walked on together.",
        rng.choice(words.HARDSHIPS),
        f"At last they came to {third}. There sat {with_article(others[2])} named {names[2]}.",
        f'"Have you seen {thing}?" asked {hero}. "Yes," said {names[2]}, "I found it, and it is yours."',
        f"{hero} took {it} and felt very {rng.choice(words.FEELINGS)}.",
        f"But soon {hero} looked at {names[0]}, {names[1]} and {names[2]} and smiled.",
        f'"{capitalized(it)} is nice," said {hero}, "but friends are better."',
        "They all went home together, and they told this story many times.",
    ]
    return " ".join(sentences)


def story(rng: Random) -> Turn:
    animal, hero = rng.choice(words.ANIMALS), rng.choice(words.HERO_NAMES)
    subject = with_article(animal)
    if rng.random() < 0.35:
        hero = any_name(rng)
        subject = f"{subject} named {hero}"
    return Turn(rng.choice(words.STORY_REQUESTS).format(subject), story_text(rng, animal, hero))


def long_story(rng: Random) -> Turn:
    animal = rng.choice(words.ANIMALS)
    question = rng.choice(words.LONG_STORY_REQUESTS).format(with_article(animal))
    return Turn(question, journey_text(rng, animal, rng.choice(words.HERO_NAMES)))


def any_story(rng: Random) -> Turn:
    if rng.random() < 0.05:
        question = rng.choice(words.ANY_STORY_REQUESTS)
        return Turn(question, story_text(rng, rng.choice(words.ANIMALS), rng.choice(words.HERO_NAMES)))
    return story(rng)


# --- numbers ---


def operand(rng: Random) -> int:
    return rng.randint(0, 20) if rng.random() < 0.85 else rng.randint(0, 50)


def sums(rng: Random) -> Turn:
    kind = rng.choices(("plus", "minus", "twice", "times"), (5, 4, 1, 2))[0]
    if kind == "plus":
        a, b = operand(rng), operand(rng)
        question = rng.choice(words.PLUS_QUESTIONS).format(a, b)
        return Turn(question, f"{a} plus {b} is {a + b}.", fact=f"{a} plus {b}")
    if kind == "minus":
        b, a = sorted((operand(rng), operand(rng)))
        question = rng.choice(words.MINUS_QUESTIONS).format(a, b)
        return Turn(question, f"{a} minus {b} is {a - b}.", fact=f"{a} minus {b}")
    if kind == "twice":
        a = rng.randint(0, 30)
        return Turn(rng.choice(words.TWICE_QUESTIONS).format(a), f"Twice {a} is {2 * a}.")
    # The multiplication table is learned by heart, as by children: only its wordings are held out.
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    return Turn(rng.choice(words.TIMES_QUESTIONS).format(a, b), f"{a} times {b} is {a * b}.")


def comparing(rng: Random) -> Turn:
    a, b = rng.sample(range(100 if rng.random() < 0.3 else 21), 2)
    kind, winner, loser = ("bigger", max(a, b), min(a, b))
    if rng.random() >= 0.5:
        kind, winner, loser = ("smaller", loser, winner)
    question = rng.choice(words.COMPARING_QUESTIONS).format(kind, a, b)
    return Turn(question, f"{winner} is {kind} than {loser}.", fact=f"{kind} {a} {b}")


def number_list(numbers: range) -> str:
    return ", ".join(map(str, numbers)) + "."


def counting(rng: Random) -> Turn:
    """Half of the ranges are short, because the only hard thing about a range is where to stop."""
    if rng.random() < 0.2:
        first = rng.randint(2, 30)
        last = rng.choice((max(first - rng.randint(1, 5), 0), rng.randint(0, min(first - 1, 10))))
        return Turn(f"Count down from {first} to {last}.", number_list(range(first, last - 1, -1)))
    first = rng.choice((1, 1, rng.randint(0, 80)))
    last = first + rng.choice((rng.randint(1, 5), rng.randint(2, 19)))
    if rng.random() < 0.05:
        first, last = 1, rng.randint(21, 100)
    wordings = words.COUNTING_FROM_ONE_REQUESTS if first == 1 else words.COUNTING_REQUESTS
    question = rng.choice(wordings).format(first, last)
    return Turn(question, number_list(range(first, last + 1)), fact=f"{first} to {last}")


# --- things known by heart: only wordings are held out ---


def opposites(rng: Random) -> Turn:
    pair = list(rng.choice(list(words.OPPOSITES.items())))
    rng.shuffle(pair)
    question = rng.choice(words.OPPOSITE_QUESTIONS).format(pair[0])
    return Turn(question, f"The opposite of {pair[0]} is {pair[1]}.")


def calendar(rng: Random) -> Turn:
    kind, cycle = rng.choice((("day", words.DAYS), ("month", words.MONTHS)))
    step, side = rng.choice(((1, "after"), (-1, "before")))
    here = rng.randrange(len(cycle))
    there = cycle[(here + step) % len(cycle)]
    question = rng.choice(words.CALENDAR_QUESTIONS).format(kind=kind, side=side, here=cycle[here])
    return Turn(question, f"{there} comes {side} {cycle[here]}.")


def animals(rng: Random) -> Turn:
    if rng.random() < 0.5:
        animal = rng.choice(list(words.SOUNDS))
        noun = with_article(animal)
        question = rng.choice(words.SOUND_QUESTIONS).format(noun)
        return Turn(question, f"{capitalized(noun)} says {words.SOUNDS[animal]}.")
    animal = rng.choice(list(words.LEGS))
    noun, legs = with_article(animal), words.LEGS[animal] or "no"
    return Turn(rng.choice(words.LEG_QUESTIONS).format(noun), f"{capitalized(noun)} has {legs} legs.")


def colors(rng: Random) -> Turn:
    thing = rng.choice(list(words.COLORS))
    question = rng.choice(words.COLOR_QUESTIONS).format(thing)
    return Turn(question, f"{capitalized(thing)} is {words.COLORS[thing]}.")


def from_list(entries: tuple[tuple[tuple[str, ...], str], ...]) -> Callable[[Random], Turn]:
    """A topic whose questions and answers are written out in `words.py`."""

    def draw(rng: Random) -> Turn:
        questions, answer = rng.choice(entries)
        return Turn(rng.choice(questions), answer)

    return draw


def fixed_lists(rng: Random) -> Turn:
    """Lists that are long enough to be watched while they are written."""
    kind = rng.choices(("table", "days", "months", "alphabet"), (4, 1, 1, 1))[0]
    if kind == "table":
        n = rng.randint(1, 10)
        question = rng.choice(words.TABLE_REQUESTS).format(n)
        return Turn(question, " ".join(f"{i} times {n} is {i * n}." for i in range(1, 11)))
    names, items = {
        "days": ("days of the week", words.DAYS),
        "months": ("months of the year", words.MONTHS),
        "alphabet": ("letters of the alphabet", tuple("abcdefghijklmnopqrstuvwxyz")),
    }[kind]
    return Turn(rng.choice(words.LIST_REQUESTS).format(names), ", ".join(items) + ".")


def off_topic(rng: Random) -> Turn:
    pattern, subjects = rng.choice(list(words.OFF_TOPIC.items()))
    return Turn(pattern.format(rng.choice(subjects)), words.CANNOT)


# --- copying: the answer is made of what the question says ---


def spelling(rng: Random) -> Turn:
    word = any_word(rng)
    return Turn(rng.choice(words.SPELLING_REQUESTS).format(word), "-".join(word) + ".")


def records(rng: Random) -> Turn:
    if rng.random() < 0.15:
        first = rng.randint(0, 60)
        last = first + rng.randint(2, 9)
        question = f"Give me a JSON list of the numbers from {first} to {last}."
        return Turn(question, json.dumps(list(range(first, last + 1))))
    name, animal, mood = any_name(rng), rng.choice(words.ANIMALS), rng.choice(words.MOODS)
    question = rng.choice(words.RECORD_REQUESTS).format(f"{name} the {mood} {animal}")
    return Turn(question, json.dumps({"name": name, "animal": animal, "mood": mood}))


def short_sentence(rng: Random) -> str:
    subject = rng.choice((any_name(rng), f"the {rng.choice(words.MOODS)} {rng.choice(words.ANIMALS)}"))
    verb = rng.choice(words.VERBS)
    return f"{subject} {verb} {rng.choice((*words.THINGS, 'the ' + rng.choice(words.WORDS)))}"


def repeating(rng: Random) -> Turn:
    kind = rng.randrange(4)
    if kind == 0:
        sentence = short_sentence(rng) + "."
        return Turn(rng.choice(words.SENTENCE_REQUESTS).format(sentence), capitalized(sentence))
    if kind == 1:
        text = " ".join(any_word(rng) for _ in range(rng.randint(1, 6)))
        return Turn(rng.choice(words.TEXT_REQUESTS).format(text), text)
    if kind == 2:
        word = any_word(rng)
        number, count = rng.choice((("two", 2), ("three", 3), ("four", 4), ("five", 5)))
        return Turn(f"Say {word} {number} times.", ", ".join([word] * count) + ".")
    first, second, third = (any_word(rng) for _ in range(3))
    return Turn(f"Write a list of {first}, {second} and {third}.", f"1. {first} 2. {second} 3. {third}")


def introductions(rng: Random) -> Turn:
    name = any_name(rng)
    return Turn(rng.choice(words.INTRODUCTIONS).format(name), f"Nice to meet you, {name}!")


def memory(rng: Random) -> Turn:
    """A question about something said earlier in the dialogue, with or without other turns in between."""
    kind = rng.randrange(3)
    if kind == 0:
        told = introductions(rng)
        name = told.answer.removeprefix("Nice to meet you, ").removesuffix("!")
        question = rng.choice(words.NAME_QUESTIONS)
        answer = f"Your name is {name}."
    elif kind == 1:
        color = rng.choice(words.COLOR_NAMES)
        told = Turn(f"My favorite color is {color}.", f"{capitalized(color)} is a nice color.")
        question = rng.choice(("What is my favorite color?", "Which color do I like?"))
        answer = f"Your favorite color is {color}."
    else:
        name, animal = any_name(rng), rng.choice(words.ANIMALS)
        pet = with_article(animal)
        told = Turn(f"I have {pet} named {name}.", f"{name} is a nice name for {pet}.")
        question = rng.choice((f"What is the name of my {animal}?", f"How is my {animal} called?"))
        answer = f"Your {animal} is named {name}."
    others = tuple(topic for topic in SINGLE_TOPICS if topic != "introductions")
    between = tuple(training_turn(rng, others) for _ in range(rng.choice((0, 0, 1, 1, 2))))
    return Turn(question, answer, fact=f"{told.question} {question}", history=(told, *between))


# Topic, how it is drawn, and its share of the turns. From "spelling" on they copy: a fifth of all turns.
TOPICS: dict[str, tuple[Callable[[Random], Turn], float]] = {
    "small talk": (from_list(words.SMALL_TALK), 5),
    "mesh facts": (from_list(words.MESH_FACTS), 7),
    "stories": (any_story, 10),
    "long stories": (long_story, 4),
    "sums": (sums, 19),
    "comparing": (comparing, 5),
    "counting": (counting, 45),
    "opposites": (opposites, 4),
    "calendar": (calendar, 5),
    "animals": (animals, 4),
    "colors": (colors, 3),
    "fixed lists": (fixed_lists, 1.5),
    "off topic": (off_topic, 2),
    "spelling": (spelling, 8),
    "records": (records, 7),
    "repeating": (repeating, 8),
    "introductions": (introductions, 3),
    "memory": (memory, 4),
}
# Topics whose turns may stand anywhere in a dialogue (`memory` brings its own history).
SINGLE_TOPICS = tuple(topic for topic in TOPICS if topic != "memory")


def draw_turn(rng: Random, topic: str, *, held_out: bool) -> Turn:
    """A turn of the topic from the wanted side of the split."""
    while True:
        turn = TOPICS[topic][0](rng)
        if is_held_out(turn) == held_out:
            return turn


def training_turn(rng: Random, topics: tuple[str, ...] = SINGLE_TOPICS) -> Turn:
    weights = [TOPICS[topic][1] for topic in topics]
    return draw_turn(rng, rng.choices(topics, weights)[0], held_out=False)


def system_text(rng: Random) -> str:
    """Instructions, loose sentences, or a page of them: what matters is that the answers do not change."""
    sentences = [rng.choice(words.SYSTEM_TEXTS)]
    sentences += [
        rng.choice((rng.choice(words.SYSTEM_TEXTS), capitalized(short_sentence(rng)) + "."))
        for _ in range(rng.choice((0, 0, 1, 2, 8)))
    ]
    rng.shuffle(sentences)
    return " ".join(sentences)


def documents(seed: int) -> Iterator[Document]:
    """Endless training documents; the same seed gives the same ones."""
    rng = Random(seed)
    while True:
        kind = rng.random()
        if kind < PLAIN_STORY_SHARE:
            text = rng.choice((story_text, story_text, journey_text))
            yield Document(plain=text(rng, rng.choice(words.ANIMALS), rng.choice(words.HERO_NAMES)))
            continue
        if kind < PLAIN_STORY_SHARE + PLAIN_ANSWER_SHARE:
            turn = training_turn(rng)
            yield Document(plain=f"{turn.question} {turn.answer}")
            continue
        turns: list[Turn] = []
        for _ in range(rng.choices(TURN_COUNTS, TURN_WEIGHTS)[0]):
            turn = training_turn(rng, tuple(TOPICS))
            turns += [*turn.history, turn]
        yield Document(tuple(turns), system=system_text(rng) if rng.random() < SYSTEM_SHARE else "")


def held_out_turns(topic: str, count: int, seed: int) -> list[Turn]:
    """Up to `count` different held-out turns of a topic; fewer where the topic has no more of them."""
    rng = Random(seed)
    found: dict[str, Turn] = {}
    for _ in range(50 * count):
        if len(found) == count:
            break
        turn = draw_turn(rng, topic, held_out=True)
        found.setdefault(turn.fact or turn.question, turn)
    return list(found.values())
