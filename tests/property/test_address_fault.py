"""A subject has a fault unless a worker's consumer could take requests from it."""

import string

from hypothesis import given
from hypothesis import strategies as st

from mesh.protocol.messages import TIERS
from mesh.protocol.subjects import Names, is_token
from mesh.reconcile.address_fault import address_fault

NAMES = Names()
good = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
anything = st.one_of(good, st.sampled_from(TIERS), st.text(max_size=70).filter(lambda text: "." not in text))


@given(good, st.sampled_from(TIERS), good, good)
def test_what_a_client_builds_has_no_fault(model: str, tier: str, tenant: str, affinity: str) -> None:
    assert address_fault(NAMES.request(model, tier, tenant, affinity).split(".")[2:]) is None


@given(st.lists(anything, max_size=6))
def test_what_has_no_fault_names_a_consumer_and_a_result(tokens: list[str]) -> None:
    fault = address_fault(tokens)
    address = NAMES.read_request(".".join(("mesh", "req", *tokens)))
    is_served = address is not None and is_token(address.model) and is_token(address.tenant) and address.tier in TIERS
    assert (fault is None) == is_served
    assert fault is None or fault.code == "invalid_request"
