"""How a driver gives up a device that broke the text; the guest lives on without it."""

from guest_agent.drivers.area import DriverArea
from guest_agent.transport import Transport
from spec.device import DeviceStatus
from vdev.errors import DeviceViolation
from vdev.events import Emitter, ViolationFound

__all__ = ["check_needs_no_reset", "give_up_device"]


def check_needs_no_reset(transport: Transport) -> None:
    """Raise DeviceViolation if the device can do nothing more until it is reset ("Device Status Field")."""
    if transport.needs_reset:
        raise DeviceViolation(
            "Basic Facilities of a Virtio Device / Device Status Field", "the device set DEVICE_NEEDS_RESET"
        )


def give_up_device(area: DriverArea, transport: Transport, why: DeviceViolation, events: Emitter) -> None:
    """Note why in the driver's area and tell listeners, then reset the device and mark it FAILED.

    A device that does not even reset raises nothing: there is nothing more a driver could do to it.
    """
    area.reason = str(why)
    if events.listening:
        events.emit(ViolationFound(area.name, "device", why.statement, why.message))
    try:
        transport.reset()
    except DeviceViolation as refusal:
        area.reason = f"{why}; {refusal}"
    transport.set_status(DeviceStatus.FAILED)
