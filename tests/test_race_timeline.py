"""The time line is one page that needs nothing else, with every step at its place and nothing on top of anything."""

import re
from html.parser import HTMLParser
from itertools import combinations
from xml.etree import ElementTree

import pytest
from race_findings import Recorder, long_loss, loss_of_filter_on_ready, verdict_of

from vdev.race.combination import Bound, Combination
from vdev.race.steps import steps_of
from vdev.race.timeline import WIDTH, draw_timeline
from vdev.race.timeline_page import page_of_finding, page_of_verdict
from vdev.race.turns import turns_of

SVG = "{http://www.w3.org/2000/svg}"
FINDINGS = {"one page": loss_of_filter_on_ready(), "three pages": long_loss(), "short": long_loss(16)}


@pytest.fixture(params=FINDINGS, ids=lambda name: name.replace(" ", "-"))
def finding(request):
    return FINDINGS[request.param]


@pytest.fixture
def drawing(finding):
    return ElementTree.fromstring(draw_timeline(finding))


def texts(drawing, kind):
    return [element for element in drawing.iter(f"{SVG}text") if element.get("class").split()[0] == kind]


def test_the_letters_are_those_of_the_story(finding, drawing):
    turns = [turn for turn in turns_of(finding) if turn.letter is not None]
    letters = texts(drawing, "letter")
    assert [element.text for element in letters] == [f"{turn.letter})" for turn in turns]
    acts = texts(drawing, "act-name")
    firsts = [acts[turn.steps[0].number] for turn in turns]
    assert [float(element.get("y")) for element in letters] == [float(first.get("y")) + 0.5 for first in firsts]


def test_every_actor_has_a_lane_and_every_act_stands_in_it(finding, drawing):
    lanes = {element.text: element.get("x") for element in texts(drawing, "actor-name")}
    assert set(lanes) == {act.actor for act in finding.acts}
    assert [element.get("x") for element in texts(drawing, "act-name")] == [lanes[act.actor] for act in finding.acts]


def extent(element):
    """Left, right, top and bottom of a text: a generous guess from its length."""
    size = {"words": 6.9, "act-name": 6.6, "letter": 8.0}.get(element.get("class").split()[0], 7.2)
    size = 7.8 if element.get("class") == "words fatal" else size
    width = size * len(element.text)
    left = float(element.get("x")) - {"start": 0, "middle": width / 2, "end": width}[element.get("text-anchor")]
    return left, left + width, float(element.get("y")) - 11, float(element.get("y")) + 3


def test_no_text_lies_on_another_or_outside(drawing):
    extents = [extent(element) for element in drawing.iter(f"{SVG}text")]
    for a, b in combinations(extents, 2):
        assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2], (a, b)
    height = float(drawing.get("viewBox").split()[3])
    assert all(left >= 0 and right <= WIDTH and top >= 0 and bottom <= height for left, right, top, bottom in extents)


def test_every_hint_is_a_bar_and_an_arrow_goes_from_queue_to_pop(finding, drawing):
    lives = [life for step in steps_of(finding) for life in step.came]
    assert len(texts(drawing, "hint-name")) == len(lives)
    arrows = [element for element in drawing.iter(f"{SVG}path") if element.get("class") == "arrow"]
    assert len(arrows) == sum(life.ended_at is not None for life in lives)


def test_the_fatal_step_and_the_lost_write_stand_out(drawing):
    kinds = [element.get("class") for element in drawing.iter(f"{SVG}rect")]
    assert kinds.count("band fatal") == 1
    assert kinds.count("band lost-write") == 1


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.found += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_needs_no_network_and_no_script(finding):
    page = page_of_finding(finding)
    links = Links()
    links.feed(page)
    assert links.found == []
    assert "script" not in links.tags
    assert re.findall(r"url\(|@import", page) == []
    assert "prefers-color-scheme: dark" in page
    assert f"loses page {finding.lost[0]} in {len(finding.moments)} acts</h1>" in page


def test_every_colour_that_is_used_is_defined_for_light_and_dark():
    page = page_of_finding(loss_of_filter_on_ready())
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    light, dark = page.split("prefers-color-scheme: dark")
    assert used == set(re.findall(r"(--[a-z0-9-]+):", light)) == set(re.findall(r"(--[a-z0-9-]+):", dark))


def test_the_page_of_a_safe_combination_says_what_was_seen():
    r = Recorder(Combination("ignore-late"), Bound())
    r.act("migrator", "start", syncs=1)
    broken = {"3 one-at-a-time": r.finding(broken="3 one-at-a-time")}
    page = page_of_verdict(verdict_of(r.finding(), broken_invariants=broken))
    assert "ignore-late: no page is lost</h1>" in page
    assert "1,234 states seen." in page
    assert page.count("<svg") == 1
    assert "1,234 states seen, and the search ended at its limit." in page_of_verdict(
        verdict_of(r.finding(), complete=False)
    )
