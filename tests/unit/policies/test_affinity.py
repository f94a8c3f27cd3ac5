"""Which lane a request prefers, and which worker pulls a lane first."""

from mesh.policies.affinity import PREFIX_CHARS, PREFIX_IDS, affinity_token, owned_lanes
from mesh.protocol.messages import Message, Request, Role


def chat(*turns: tuple[Role, str]) -> Request:
    return Request(messages=[Message(role=role, content=content) for role, content in turns])


def test_the_token_of_a_request_never_changes() -> None:
    """It leads a conversation back to its cache, also after an upgrade of half the clients."""
    assert affinity_token(Request(prompt="Once upon a time")) == "cdfd59c6bed"
    assert affinity_token(Request(prompt="a", session="chat-42")) == "cd32c2905fe"


def test_one_session_is_one_token_whatever_is_asked() -> None:
    tokens = {
        affinity_token(Request(prompt="a", session="s")),
        affinity_token(Request(prompt="b", session="s", max_tokens=4)),
        affinity_token(Request(prompt_token_ids=[1], session="s")),
    }
    assert len(tokens) == 1


def test_a_chat_keeps_its_token_as_it_grows() -> None:
    one = chat(("system", "You are a parrot."), ("user", "Hello"))
    later = chat(("system", "You are a parrot."), ("user", "Hello"), ("assistant", "Hello!"), ("user", "More"))
    assert affinity_token(one) == affinity_token(later)
    assert affinity_token(one) != affinity_token(chat(("system", "You are a crow."), ("user", "Hello")))
    assert affinity_token(chat(("user", "a"))) != affinity_token(chat(("system", "a")))


def test_prompts_with_one_beginning_meet() -> None:
    start, ids = "s" * PREFIX_CHARS, list(range(PREFIX_IDS))
    assert affinity_token(Request(prompt=start + "a")) == affinity_token(Request(prompt=start + "b"))
    assert affinity_token(Request(prompt_token_ids=[*ids, 1])) == affinity_token(Request(prompt_token_ids=[*ids, 2]))


def test_what_begins_differently_is_spread() -> None:
    assert len({affinity_token(Request(prompt=f"{n} and on")) for n in range(200)}) == 200


def test_embeddings_share_nothing_and_need_no_place() -> None:
    assert affinity_token(Request(input="a")) == affinity_token(Request(input=["b", "c"]))


def test_one_worker_owns_everything() -> None:
    assert owned_lanes("w", [], 4) == owned_lanes("w", ["w"], 4) == owned_lanes("w", ["w", "w"], 4) == [0, 1, 2, 3]
    assert owned_lanes("w", ["w"], 0) == []
