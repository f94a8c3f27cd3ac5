"""No name can change the shape of a subject."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import InvalidRequestError
from mesh.job_key import JobKey
from mesh.protocol.messages import TIERS
from mesh.protocol.subjects import Names, RequestAddress, check_token, is_token, to_token

TOKENS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
# Text that leans towards what is dangerous in a subject.
ANY = st.text(st.characters() | st.sampled_from(". *>\r\n\t\x00$aZ0-_é"), max_size=70)


@given(ANY)
def test_a_token_is_exactly_what_the_grammar_says(value: str) -> None:
    allowed = 1 <= len(value) <= 64 and all(c in "-_" or (c.isascii() and c.isalnum()) for c in value)
    assert is_token(value) == allowed


@given(ANY)
def test_whatever_passes_keeps_the_number_of_tokens_in_every_subject(value: str) -> None:
    if not is_token(value):
        with pytest.raises(InvalidRequestError):
            check_token("id", value)
        return
    names = Names(value)
    subjects = {
        names.request(value, "batch", value, value): 6,
        names.events(JobKey(value, value)): 4,
        names.attempts(JobKey(value, value)): 5,
        names.dead(RequestAddress(value, "batch", value, value)): 6,
        names.control(value, "cancel", value): 5,
        names.result_key(JobKey(value, value)): 4,
        names.worker_key(value): 3,
    }
    for subject, tokens in subjects.items():
        parts = subject.split(".")
        assert len(parts) == tokens
        assert all(parts)
        assert not re.search(r"[\s*>\x00-\x1f\x7f]", subject)
        assert subject.isascii()


@given(TOKENS, TOKENS, st.sampled_from(TIERS), TOKENS, TOKENS)
def test_reading_a_request_subject_undoes_building_it(
    namespace: str, model: str, tier: str, tenant: str, lane: str
) -> None:
    names = Names(namespace)
    address = names.read_request(names.request(model, tier, tenant, lane))
    assert address == RequestAddress(model, tier, tenant, lane)


@given(ANY)
def test_reading_never_raises_and_never_invents(subject: str) -> None:
    address = Names().read_request(subject)
    if address is not None:
        assert f"mesh.req.{address.model}.{address.tier}.{address.tenant}.{address.lane}" == subject


@given(st.text(max_size=100))
def test_any_name_of_a_model_becomes_a_token(name: str) -> None:
    assert is_token(to_token(name))
    assert to_token(to_token(name)) == to_token(name)
