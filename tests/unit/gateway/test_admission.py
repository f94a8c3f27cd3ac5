"""How much a front door takes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import QuotaExceededError, UnavailableError
from mesh.gateway.admission import Admission, Limits


def test_one_tenant_cannot_shut_out_the_others() -> None:
    admission = Admission(Limits(open_requests=4, of_one_tenant=2))
    admission.enter("a", 1)
    admission.enter("a", 1)
    with pytest.raises(QuotaExceededError, match="tenant a has 2 requests open"):
        admission.enter("a", 1)
    admission.enter("b", 1)
    admission.enter("b", 1)
    with pytest.raises(UnavailableError, match="holds 4 requests"):
        admission.enter("c", 1)
    admission.leave("a")
    admission.enter("c", 1)


def test_bodies_on_their_way_are_bounded_and_stored_ones_count_no_more() -> None:
    admission = Admission(Limits(pending_bytes=10))
    admission.enter("a", 6)
    with pytest.raises(UnavailableError, match="6 bytes"):
        admission.enter("b", 5)
    admission.stored(6)
    admission.enter("b", 5)
    assert (admission.open, admission.tenants) == (2, 2)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8), st.sampled_from(["enter", "stored", "leave"]))))
def test_the_books_never_exceed_a_limit_and_balance(steps: list[tuple[str, int, str]]) -> None:
    limits = Limits(open_requests=5, of_one_tenant=3, pending_bytes=20)
    admission, inside, pending = Admission(limits), [], []
    for tenant, size, step in steps:
        if step == "enter":
            try:
                admission.enter(tenant, size)
            except (QuotaExceededError, UnavailableError):
                continue
            inside.append(tenant)
            pending.append(size)
        elif step == "stored" and pending:
            admission.stored(pending.pop())
        elif step == "leave" and inside:
            admission.leave(inside.pop())
        assert admission.open == len(inside) <= 5
        assert sum(pending) <= 20
        assert all(inside.count(each) <= 3 for each in "abc")
    for size in pending:
        admission.stored(size)
    for tenant in inside:
        admission.leave(tenant)
    assert (admission.open, admission.tenants, admission._bytes) == (0, 0, 0)
