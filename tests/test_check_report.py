"""A report in each of its forms says the same as the cases do, and survives what cases may hold."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import pytest

from vdev.check.evidence import Evidence, Shown
from vdev.check.report.json_report import report_from_json, report_to_json
from vdev.check.report.junit import report_to_junit
from vdev.check.report.page import report_page
from vdev.check.report.words import dump_bytes, event_line
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict
from vdev.events import ChainsUsed, Kick, Record, RegisterWritten

HEAD = "split.device.used-ring.1"
LENGTH = "split.device.used-ring.2"
EVIDENCE = Evidence(
    done=("one request was made available",),
    expected="id 3",
    observed="id <4> & more",
    shown=(Shown("used element 0", bytes(range(20)), 0x1000),),
    events=(Record(0.0015, "bench", Kick(0, 1)), Record(0.002, "bench", ChainsUsed(0, (4,), (16,)))),
)


def case(verdict, *, check="used.head", variant="split", covers=(HEAD, LENGTH), why="it was so", evidence=EVIDENCE):
    return CaseResult(
        check=check,
        variant=variant,
        summary="A used element names the head.",
        covers=covers,
        verdict=verdict,
        statement=covers[0] if verdict is Verdict.FAIL else None,
        why="" if verdict is Verdict.PASS else why,
        evidence=evidence,
        seconds=0.25,
        repeat="vdev check device /run/x.sock --type block --only used.head",
    )


def report(*cases, side="device", **subject):
    return Report(side, {"type": "block", "socket": "/run/x.sock", **subject}, 7, cases, 1.5, "1.0")


EVERY = report(*(case(verdict, variant=verdict.name.lower()) for verdict in Verdict))


def test_a_report_comes_back_from_json_as_it_was():
    assert report_from_json(json.loads(json.dumps(report_to_json(EVERY)))) == EVERY


@pytest.mark.parametrize("damage", [{"schema": 2}, {"cases": None}, {"cases": [{}]}, {"seed": ...}])
def test_a_mapping_that_is_no_report_is_named(damage):
    mapping = report_to_json(EVERY) | damage
    if damage.get("seed") is ...:
        del mapping["seed"]
    with pytest.raises(ValueError, match="report"):
        report_from_json(mapping)


def test_a_run_that_was_stopped_says_so_in_each_form():
    stopped = dataclasses.replace(EVERY, stopped="interrupted after 6 of 9 cases", interrupted=True)
    assert report_from_json(json.loads(json.dumps(report_to_json(stopped)))) == stopped
    assert "interrupted after 6 of 9 cases" in report_page(stopped)
    properties = {
        each.get("name"): each.get("value") for each in ET.fromstring(report_to_junit(stopped)).iter("property")
    }
    assert properties["stopped"] == "interrupted after 6 of 9 cases"


def test_a_statement_has_the_gravest_verdict_of_its_cases():
    mapping = report_to_json(report(case(Verdict.PASS), case(Verdict.FAIL, variant="packed")))
    assert {entry["id"]: entry["verdict"] for entry in mapping["statements"]} == {
        HEAD: "FAIL",
        LENGTH: "INCONCLUSIVE",  # the check that failed at one says nothing of the other
    }


def test_junit_counts_and_names_each_case():
    suites = ET.fromstring(report_to_junit(EVERY))
    assert {name: suites.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "2",
        "skipped": "2",
    }
    outcomes = {
        test.get("name"): [child.tag for child in test if child.tag != "properties"] for test in suites.iter("testcase")
    }
    assert outcomes == {
        "used.head[fail]": ["failure"],
        "used.head[crashed]": ["error"],
        "used.head[hung]": ["error"],
        "used.head[inconclusive]": ["skipped"],
        "used.head[pass]": [],
        "used.head[not_applicable]": ["skipped"],
    }
    failure = next(suites.iter("failure"))
    assert failure.get("message") == "FAIL: it was so"
    assert failure.get("type") == HEAD
    assert "observed: id <4> & more" in failure.text
    assert "00001000  00 01 02" in failure.text
    assert "repeat: vdev check device" in failure.text


def test_junit_holds_only_what_xml_can_hold():
    odd = report(case(Verdict.FAIL, why="the name is \x00\x1b[31m\ud800", evidence=Evidence(("\x07",))))
    failure = next(ET.fromstring(report_to_junit(odd)).iter("failure"))
    assert failure.get("message") == "FAIL: the name is ��[31m�"


def test_the_page_needs_nothing_else():
    page = report_page(EVERY)
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "http" not in page
    assert "@import" not in page


def test_each_link_of_the_page_leads_somewhere():
    page = report_page(EVERY)
    targets = re.findall(r'id="([^"]+)"', page)
    assert len(targets) == len(set(targets))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(targets)
    assert "case-used.head[fail]" in targets


def test_the_page_shows_each_statement_of_the_side_and_why_it_has_no_verdict():
    page = report_page(report(case(Verdict.PASS)))
    assert f'<tr id="{HEAD}" data-verdict="pass">' in page
    assert '<tr id="split.device.used-ring.3" data-verdict="none">' in page
    assert 'id="split.driver.' not in page
    assert 'id="balloon.device' not in page  # the subject is a disk
    assert 'id="block.device' in page


def test_what_others_said_is_text_on_the_page():
    page = report_page(report(case(Verdict.FAIL, why="<script>alert(1)</script>"), socket="<b>"))
    assert "<script>alert" not in page
    assert "&lt;b&gt;" in page
    assert "id &lt;4&gt; &amp; more" in page


def test_bytes_are_shown_in_rows_and_the_rest_is_counted():
    rows = dump_bytes(Shown("ring", bytes(16 * 40), 0x2000))
    assert rows[1].startswith("00002010  00 00")
    assert rows[-1] == "... 128 bytes more"
    assert dump_bytes(Shown("nothing", b"")) == []


def test_an_event_is_one_line():
    line = event_line(Record(0.0015, "bench", RegisterWritten("block", 0x70, 4, 15)))
    assert line == "     1.500 ms  bench      RegisterWritten device=block offset=0x70 size=4 value=0xf"
