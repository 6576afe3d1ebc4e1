"""Which cases are done, in which order, and why others are not."""

import pytest

from spec.device import Feature
from spec.statements import catalogue
from spec.vhost_user import ProtocolFeature
from vdev.check.checks import load_device_checks
from vdev.check.plan import Wanted, plan
from vdev.check.registry import ANY_FORMAT, BOTH, Check, RingFormat
from vdev.check.target_probe import Offer
from vdev.devices.kind import Carrier
from vdev.errors import UserError

ALL = Offer(features=(1 << 64) - 1, protocol_features=(1 << 32) - 1)


@pytest.fixture(scope="module")
def ids():
    return list(catalogue())


def made(name, **changes):
    values = {
        "name": name,
        "covers": ("split.device.used-ring.1", "packed.device.descriptor-table.1"),
        "summary": "It is so.",
        "run": lambda bench: None,
        "formats": BOTH,
        "carriers": frozenset(Carrier),
        "types": None,
        "features": (),
        "protocol_features": (),
        "hostile": False,
        "writes": False,
    }
    return Check(**(values | changes))


def planned(*checks, offer=ALL, carrier=Carrier.VHOST_USER, kind="block", **wanted):
    return plan(checks, kind, carrier=carrier, offer=offer, wanted=Wanted(**wanted))


def names(cases):
    return [case.name for case in cases]


def reason(check, **options):
    (case,) = planned(check, **options)
    return case.not_applicable


def once(**changes):
    return made("a.check", formats=ANY_FORMAT, **changes)


def test_a_check_of_rings_is_a_case_for_each_format_and_any_other_is_one():
    cases = planned(made("a.check"), made("b.check", formats=(RingFormat.PACKED,)), once())
    assert set(names(cases)) == {"a.check[split]", "a.check[packed]", "b.check[packed]", "a.check"}


def test_a_case_speaks_for_its_own_format_only():
    split, packed = planned(made("a.check"))
    assert split.covers == ("split.device.used-ring.1",)
    assert packed.covers == ("packed.device.descriptor-table.1",)


def test_a_case_applies_where_nothing_is_missing():
    assert all(not case.not_applicable for case in planned(made("a.check")))


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"types": frozenset({"balloon", "entropy"})}, {}, "for balloon and entropy devices, and the type is block"),
        ({"carriers": frozenset({Carrier.MMIO})}, {}, "behind mmio only"),
        ({"features": (Feature.IN_ORDER, 9)}, {"offer": Offer(0)}, "does not offer FLUSH and IN_ORDER"),
        ({"protocol_features": (ProtocolFeature.STATUS,)}, {"offer": Offer(0)}, "protocol feature STATUS"),
        ({"writes": True}, {}, "--may-write"),
    ],
)
def test_what_is_missing_is_the_reason(changes, options, words):
    assert words in reason(once(**changes), **options)


def test_what_is_allowed_to_be_written_is_written():
    assert reason(once(writes=True), may_write=True) == ""


def test_behind_registers_nobody_asks_for_protocol_features():
    assert reason(once(protocol_features=(3,)), carrier=Carrier.MMIO, offer=Offer(0)) == ""


def test_the_packed_case_needs_packed_rings():
    split, packed = planned(made("a.check"), offer=Offer(1 << Feature.VERSION_1))
    assert split.not_applicable == ""
    assert packed.not_applicable == "the target does not offer RING_PACKED"


def test_hostile_input_comes_last_and_the_rest_in_the_catalogues_order(ids):
    first = made("z.first", covers=(ids[0],), formats=ANY_FORMAT)
    last = made("a.last", covers=(ids[-1],), formats=ANY_FORMAT)
    hostile = made("a.hostile", covers=(ids[0],), formats=ANY_FORMAT, hostile=True)
    assert names(planned(hostile, last, first)) == ["z.first", "a.last", "a.hostile"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.check", {"a.check[split]", "a.check[packed]"}),
        ("a.check[packed]", {"a.check[packed]"}),
        ("*[packed]", {"a.check[packed]"}),
        ("b.*", {"b.check"}),
        ("b.chec?", {"b.check"}),
        ("split.device.used-ring.1", {"a.check[split]"}),
        ("split.device.*", {"a.check[split]"}),
    ],
)
def test_only_names_checks_cases_and_statements(pattern, found):
    checks = made("a.check"), made("b.check", formats=ANY_FORMAT, covers=("mmio.device.registers.1",))
    assert set(names(planned(*checks, only=(pattern,)))) == found
    everything = set(names(planned(*checks)))
    assert set(names(planned(*checks, skip=(pattern,)))) == everything - found


def test_a_pattern_that_names_nothing_is_refused_with_what_may_have_been_meant():
    with pytest.raises(UserError, match=r"--only: no check.*did you mean a\.check\?"):
        planned(made("a.check"), only=("a.chekc",))
    with pytest.raises(UserError, match="--skip: no check"):
        planned(made("a.check"), skip=("xyz",))


def test_a_statement_without_a_check_is_refused_with_the_reason():
    statement = next(each for each in catalogue().values() if each.unchecked)
    with pytest.raises(UserError, match="no check covers") as refusal:
        planned(made("a.check"), only=(statement.id,))
    assert statement.unchecked in str(refusal.value)


def test_every_check_that_is_shipped_has_a_case_for_some_type():
    checks = load_device_checks()
    assert len(checks) > 100
    for check in checks.values():
        kind = next(iter(check.types)) if check.types else "block"
        carrier = next(iter(check.carriers))
        cases = planned(check, kind=kind, carrier=carrier, may_write=True)
        assert all(not case.not_applicable for case in cases), check.name
        assert all(case.covers for case in cases), f"{check.name} shows nothing in one format"
