"""A device in this process is judged like any other: it may raise, and it may not come back."""

from contextlib import closing

import pytest

from spec.mmio import Register
from vdev.check.target_probe import offer_of
from vdev.check.target_registers import RegistersTarget
from vdev.check.target_thread import ThreadTarget
from vdev.check.verdict import TargetCrashed, TargetHung
from vdev.devices.balloon import BalloonDevice
from vdev.devices.entropy import EntropyDevice
from vdev.memory import GuestMemory
from vdev.vhost_user.framing import encode

IMPATIENCE = 0.2
BOTH = pytest.mark.parametrize("make", [RegistersTarget, ThreadTarget])


class Raising(EntropyDevice):
    def write_status(self, value):
        raise KeyError("no such status")


class Endless(EntropyDevice):
    def write_status(self, value):
        while True:
            pass


@BOTH
def test_a_device_offers_what_its_class_says(make):
    with closing(make(EntropyDevice)) as target:
        offered = offer_of(target).features
        assert offered & EntropyDevice.offered_features == EntropyDevice.offered_features
        assert target.settle() is None
        assert offer_of(target).features == offered


def test_each_driver_gets_a_new_device_behind_registers_and_the_old_one_is_closed():
    closed = []

    class Noting(EntropyDevice):
        def close(self):
            closed.append(self)

    with closing(RegistersTarget(Noting)) as target:
        first = target.plug_in(GuestMemory.absent()).device
        second = target.plug_in(GuestMemory.absent()).device
        assert closed == [first]
    assert closed == [first, second]


def test_an_exception_in_a_register_access_is_a_crash_that_says_where():
    with closing(RegistersTarget(Raising)) as target:
        registers = target.plug_in(GuestMemory.absent())
        with pytest.raises(TargetCrashed, match="KeyError in a write of 0x1, 4 bytes, at 0x70"):
            registers.write(Register.STATUS, 4, 1)
        assert target.restart()


def test_a_device_that_cannot_be_made_has_crashed():
    def make(_):
        raise RuntimeError("no disk")

    with pytest.raises(TargetCrashed, match="no disk"):
        RegistersTarget(make).plug_in(GuestMemory.absent())


def test_a_register_access_that_does_not_return_hangs_within_the_limit():
    with closing(RegistersTarget(Endless, patience=IMPATIENCE)) as target:
        registers = target.plug_in(GuestMemory.absent())
        with pytest.raises(TargetHung, match=r"within 0\.2 s"):
            registers.write(Register.STATUS, 4, 1)


def test_a_back_end_that_raises_has_crashed_and_the_next_driver_gets_a_new_one():
    with closing(ThreadTarget(Raising)) as target:
        offer_of(target)
        with target.connect() as connection:
            connection.sendall(encode(2, (1 << 32).to_bytes(8, "little")))
            connection.settimeout(10)
            assert connection.recv(1) == b""
        ending = target.settle()
        assert ending.is_crash
        assert ending.why == "the back end raised KeyError: 'no such status'"
        assert offer_of(target).features


def test_the_host_of_a_balloon_acts_in_both():
    for make in (RegistersTarget, ThreadTarget):
        with closing(make(BalloonDevice)) as target:
            assert target.host is None
            if make is RegistersTarget:
                target.plug_in(GuestMemory.absent())
            else:
                offer_of(target)
            assert target.host("inflate", {"pages": 3}) is not None
            assert target.host("figures", {})["target_pages"] == 3


def test_a_device_without_a_host_has_none():
    with closing(RegistersTarget(EntropyDevice)) as target:
        target.plug_in(GuestMemory.absent())
        assert target.host is None
