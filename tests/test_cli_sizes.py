"""Sizes, times and rates are read as people write them, and written so that they can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdev.cli.sizes import (
    format_bandwidth,
    format_count,
    format_duration,
    format_size,
    parse_bandwidth,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    {
        "0": 0,
        "4096": 4096,
        "4096B": 4096,
        "4KiB": 4 << 10,
        "512MiB": 512 << 20,
        "512 mib": 512 << 20,
        "1GiB": 1 << 30,
        "1G": 1 << 30,
        "1.5g": 3 << 29,
        "2TiB": 2 << 40,
        "1GB": 10**9,
        ".5KiB": 512,
    }.items(),
)
def test_a_size_is_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "1GiB2", "1e9", "one", "0x10", "1.2.3", "1 2", "nan", "1PiB", "1ms", "4,096"]
)
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="a size like 512MiB or 1GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("0.3s", 0.3), ("2s", 2.0), ("500us", 5e-4), ("1min", 60)]
)
def test_a_time_is_read(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["300", "", "ms", "3 hours", "1MiB"])
def test_a_time_without_its_unit_is_refused(text):
    with pytest.raises(ValueError, match="a time with its unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100MiB/s", 100 << 20), ("100MiB", 100 << 20), ("1Gbit/s", 125e6), ("8bit/s", 1), ("1000", 1000), ("1GB/s", 1e9)],
)
def test_a_bandwidth_is_read(text, rate):
    assert parse_bandwidth(text) == rate


@given(st.integers(0, 1 << 50))
def test_a_size_in_bytes_is_read_back(size):
    assert parse_size(str(size)) == size


@given(st.floats(0, 1e15))
def test_a_written_size_is_read_back_to_three_digits(size):
    assert parse_bandwidth(format_size(size)) == pytest.approx(size, rel=0.006, abs=0.5)


@given(st.floats(1e-3, 90))
def test_a_written_time_is_read_back_to_three_digits(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.006)


def test_written_figures_keep_their_width():
    assert [format_size(size) for size in (0, 1023, 1024, 10_239, 1 << 20, 999 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.00 KiB",
        "10.0 KiB",
        "1.00 MiB",
        "999 GiB",
        "5.00 TiB",
    ]
    assert [format_duration(seconds) for seconds in (0, 0.0000123, 0.0123, 1.5, 59.99, 754)] == [
        "0 us",
        "12 us",
        "12.3 ms",
        "1.50 s",
        "60.0 s",
        "12 min 34 s",
    ]
    assert format_bandwidth(2.5e9) == "2.33 GiB/s"
    assert format_count(1234567) == "1,234,567"
