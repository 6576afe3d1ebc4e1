"""Each normative sentence of the chapters is one statement of the catalogue, and each statement is worded as one."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from spec.balloon import BalloonFeature
from spec.block import BlockFeature
from spec.device import DeviceStatus, Feature
from spec.statements import LEVELS, SIDES, catalogue
from spec.vhost_user import ProtocolFeature

LINES = Path(__file__).parent / "data" / "normative_lines.tsv"
"""File, line, side and level of each normative sentence of the chapters that are judged, without its words."""

OF_ANOTHER_SIDE = {
    "block.device.operation.40": "it stands among the device's duties, and speaks of requests, which drivers make",
}

ZONE_MODELS = {"HM", "HA", "NONE"}

VHOST_USERS_OWN = {"LOG_ALL", "PROTOCOL_FEATURES", "GET_VRING_BASE_SKIP_DRAIN"}
"""Feature bits that mean something only between the ends of vhost-user, by the names that its text has for them."""

KNOWN_IN_WHEN = ZONE_MODELS.union(
    VHOST_USERS_OWN,
    *(names.__members__ for names in (Feature, BalloonFeature, BlockFeature, ProtocolFeature, DeviceStatus)),
)


def of_a_sentence():
    """The statements that stand for a normative sentence: not what is only described, an erratum, or a rule of ours."""
    return [
        statement
        for statement in catalogue().values()
        if ".described." not in statement.id and not statement.id.startswith(("errata.", "hostile.", "vhost-user."))
    ]


def normative_lines():
    with LINES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_each_normative_line_has_one_statement_and_no_statement_is_invented():
    lines = Counter((f"{line['file']}:{line['line']}", line["level"]) for line in normative_lines())
    stated = Counter((statement.source, statement.level) for statement in of_a_sentence())
    assert not lines - stated, "sentences without a statement"
    assert not stated - lines, "statements without a sentence"
    assert max(lines.values()) == 1


def test_a_statement_binds_the_side_that_its_section_names():
    sides = {(f"{line['file']}:{line['line']}", line["level"]): line["side"] for line in normative_lines()}
    differing = {
        statement.id
        for statement in of_a_sentence()
        # A section that is headed for neither side may still speak of one.
        if sides[statement.source, statement.level] not in (statement.side, "text")
    }
    assert differing == set(OF_ANOTHER_SIDE)


def test_ids_are_words_between_dots():
    assert not [name for name in catalogue() if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", name)]


def test_the_side_in_an_id_is_the_statements():
    differing = {
        statement.id
        for statement in of_a_sentence()
        if (named := statement.id.split(".")[1]) != statement.side and named != "text"
    }
    assert differing == set(OF_ANOTHER_SIDE)


def test_levels_and_sides_are_legal():
    assert not [s.id for s in catalogue().values() if s.level not in LEVELS or s.side not in SIDES]


def test_texts_are_short_sentences():
    wrong = {
        statement.id: statement.text
        for statement in catalogue().values()
        if not statement.text.endswith(".") or not 10 < len(statement.text) <= 300 or "\n" in statement.text
    }
    assert not wrong


def test_sections_and_sources_are_named():
    assert not [s.id for s in catalogue().values() if not s.section or not s.source]


def test_nothing_is_both_impossible_and_missing():
    assert not [s.id for s in catalogue().values() if s.unchecked and s.missing]


def test_reasons_are_sentences():
    reasons = [reason for s in catalogue().values() for reason in (s.unchecked, s.missing) if reason]
    assert not [reason for reason in reasons if not reason.endswith(".") or not reason[0].isupper()]


def test_what_belongs_to_the_legacy_interface_is_not_checked():
    assert not [s.id for s in catalogue().values() if s.side == "legacy" and not s.unchecked.startswith("Legacy")]


def test_a_permission_that_is_not_checked_is_called_one():
    permissions = [s for s in of_a_sentence() if s.level == "MAY" and s.unchecked and s.side != "legacy"]
    known = ("A permission", "Concerns another transport")
    assert not [s.id for s in permissions if not s.unchecked.startswith(known)]
    obligations = [s for s in of_a_sentence() if s.level != "MAY"]
    assert not [s.id for s in obligations if s.unchecked.startswith("A permission")]


def test_conditions_name_known_features():
    unknown = {
        statement.id: names
        for statement in catalogue().values()
        if (names := set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", statement.when)) - KNOWN_IN_WHEN)
    }
    assert not unknown


@pytest.mark.parametrize("chapter", ["status", "split", "packed", "mmio", "balloon", "block"])
def test_most_of_what_a_chapter_demands_can_be_seen_from_outside(chapter):
    """Duties that were written off as invisible would make any coverage look good. Entropy has only three."""
    duties = [s for s in of_a_sentence() if s.id.startswith(f"{chapter}.") and s.is_absolute and s.side != "legacy"]
    assert sum(not duty.unchecked for duty in duties) >= 0.8 * len(duties)
