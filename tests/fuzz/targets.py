"""Name of a target -> what runs one input. An input is any bytes; what it raises is a fault of ours."""

from collections.abc import Callable

from fuzz.back_end import fuzz_back_end
from fuzz.device_ring import fuzz_packed_device, fuzz_split_device
from fuzz.driver_ring import fuzz_packed_driver, fuzz_split_driver
from fuzz.framing import fuzz_framing
from fuzz.front_end import fuzz_front_end

__all__ = ["TARGETS"]

TARGETS: dict[str, Callable[[bytes], None]] = {
    "split-device": fuzz_split_device,
    "packed-device": fuzz_packed_device,
    "split-driver": fuzz_split_driver,
    "packed-driver": fuzz_packed_driver,
    "framing": fuzz_framing,
    "back-end": fuzz_back_end,
    "front-end": fuzz_front_end,
}
