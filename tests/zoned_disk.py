"""A toy disk of zones, for checks of zoned disks and their mutants: all in memory, one request after the other."""

import random
from dataclasses import dataclass

from spec.block import (
    CONFIG,
    DATA_RANGE,
    ID_SIZE,
    REQUEST_HEADER,
    SECTOR_SIZE,
    BlockFeature,
    RequestStatus,
    RequestType,
)
from spec.block_zones import (
    APPEND_ANSWER,
    ZONE_DESCRIPTOR,
    ZONE_REPORT,
    ZoneModel,
    ZoneRequestType,
    ZoneState,
    ZoneStatus,
    ZoneType,
)
from spec.device import DeviceId, feature_mask
from vdev.device import RING_FEATURES, Device
from vdev.errors import DriverViolation

ZONE_SECTORS = 16
ZONE_COUNT = 10
CONVENTIONAL, READ_ONLY, OFFLINE = 0, 8, 9
MAX_OPEN, MAX_ACTIVE, MAX_APPEND = 2, 3, 8
PATTERN = b"\x5e"

FIELDS = {
    "zone_sectors": ZONE_SECTORS,
    "max_open_zones": MAX_OPEN,
    "max_active_zones": MAX_ACTIVE,
    "max_append_sectors": MAX_APPEND,
    "write_granularity": SECTOR_SIZE,
}

OPEN_STATES = (ZoneState.IMPLICITLY_OPEN, ZoneState.EXPLICITLY_OPEN)
ACTIVE_STATES = (*OPEN_STATES, ZoneState.CLOSED)


class Refused(Exception):
    """The request gets this status."""

    def __init__(self, status):
        self.status = status
        super().__init__(status)


INVALID = ZoneStatus.INVALID_CMD


@dataclass
class Zone:
    start: int
    type: ZoneType
    state: ZoneState
    written: int = 0
    """Sectors behind the start that hold data: up to the write pointer."""

    @property
    def pointer(self):
        return self.start + self.written


class Store:
    """What outlives the drivers: sectors and zones."""

    def __init__(self, sequential=ZoneType.SEQUENTIAL_REQUIRED):
        self.data = bytearray(random.Random(5).randbytes(ZONE_COUNT * ZONE_SECTORS * SECTOR_SIZE))
        self.zones = [Zone(number * ZONE_SECTORS, sequential, ZoneState.EMPTY) for number in range(ZONE_COUNT)]
        self.zones[CONVENTIONAL].type = ZoneType.CONVENTIONAL
        self.zones[CONVENTIONAL].state = ZoneState.NOT_WRITE_POINTER
        if sequential is ZoneType.SEQUENTIAL_REQUIRED:
            self.zones[READ_ONLY].state = ZoneState.READ_ONLY
            self.zones[OFFLINE].state = ZoneState.OFFLINE


class ZonedDisk(Device):
    """Disk of ``ZONE_COUNT`` zones. Where it is host-managed, one is read-only and one offline; the first is
    conventional, the others are empty at first.
    """

    device_id = DeviceId.BLOCK
    name = "zoned disk"
    queue_sizes = (64,)
    config_layout = CONFIG
    model = ZoneModel.HOST_MANAGED
    zone_fields = FIELDS
    erase_alignment = ZONE_SECTORS

    def __init__(self, memory, store):
        super().__init__(memory)
        self.store = store
        self.offered_features = RING_FEATURES | feature_mask(
            BlockFeature.SIZE_MAX,
            BlockFeature.SEG_MAX,
            BlockFeature.FLUSH,
            BlockFeature.ZONED,
            BlockFeature.SECURE_ERASE,
        )
        self.serve = {
            RequestType.IN: self.read,
            RequestType.OUT: self.write,
            RequestType.FLUSH: lambda *_: b"",
            RequestType.GET_ID: lambda *_: b"zoned".ljust(ID_SIZE, b"\0"),
            RequestType.SECURE_ERASE: self.erase,
        }
        self.serve_zoned = {
            ZoneRequestType.REPORT: self.report_zones,
            ZoneRequestType.APPEND: self.append,
            ZoneRequestType.OPEN: self.open,
            ZoneRequestType.CLOSE: self.close_zone,
            ZoneRequestType.FINISH: self.finish,
            ZoneRequestType.RESET: self.reset_zone,
            ZoneRequestType.RESET_ALL: self.reset_all,
        }
        self.fill_config()

    def fill_config(self):
        self.config["capacity"] = ZONE_COUNT * ZONE_SECTORS
        self.config["size_max"], self.config["seg_max"] = 4096, 16
        self.config["max_secure_erase_sectors"] = ZONE_SECTORS
        self.config["max_secure_erase_seg"] = 1
        self.config["secure_erase_sector_alignment"] = self.erase_alignment

    # Negotiation

    def write_status(self, value):
        lacks_zoned = not self.driver_features >> BlockFeature.ZONED & 1
        if value & 8 and lacks_zoned and self.model is ZoneModel.HOST_MANAGED:
            value &= ~8
        super().write_status(value)

    def negotiated(self):
        if self.has_feature(BlockFeature.ZONED):
            self.config["model"] = self.model
            for field, value in self.zone_fields.items():
                self.config[field] = value

    def reset(self):
        super().reset()
        for field in ("model", *self.zone_fields):
            self.config[field] = 0
        self.fill_config()

    # Requests

    def handle_queue(self, number):
        for chain in self.chains(number):
            content = chain.read(self.memory)
            if len(content) < REQUEST_HEADER.sizeof() or not chain.writable_size:
                raise DriverViolation("Block Device / Device Operation", "no request", queue=number)
            header = REQUEST_HEADER.parse(content)
            room = chain.writable_size - 1
            try:
                served = self.served_now().get(header.type)
                if served is None:
                    raise Refused(RequestStatus.UNSUPP)
                answer = served(header.sector, content[REQUEST_HEADER.sizeof() :], room)
                if len(answer) > room:
                    raise Refused(RequestStatus.IOERR)
                chain.write(self.memory, answer.ljust(room, b"\0") + bytes([RequestStatus.OK]))
            except Refused as refusal:
                chain.write(self.memory, bytes(room) + bytes([refusal.status]))
            self.queues[number].push(chain.head, chain.writable_size)

    def served_now(self):
        is_zoned = self.has_feature(BlockFeature.ZONED)
        return self.serve | self.serve_zoned if is_zoned else self.serve

    def zone_at(self, sector):
        if sector >= ZONE_COUNT * ZONE_SECTORS:
            raise Refused(RequestStatus.IOERR)
        return self.store.zones[sector // ZONE_SECTORS]

    def sectors(self, sector, size):
        if size % SECTOR_SIZE:
            raise Refused(RequestStatus.IOERR)
        count = size // SECTOR_SIZE
        if sector + count > ZONE_COUNT * ZONE_SECTORS:
            raise Refused(RequestStatus.IOERR)
        return count

    def read(self, sector, _, room):
        count = self.sectors(sector, room)
        zone = self.zone_at(sector)
        if zone.state is ZoneState.OFFLINE:
            raise Refused(INVALID)
        if zone.type is ZoneType.SEQUENTIAL_REQUIRED and sector + count > zone.start + ZONE_SECTORS:
            raise Refused(INVALID)
        return b"".join(self.sector(place) for place in range(sector, sector + count))

    def sector(self, place):
        zone = self.zone_at(place)
        if zone.type is ZoneType.SEQUENTIAL_REQUIRED and place >= zone.pointer:
            return PATTERN * SECTOR_SIZE
        return bytes(self.store.data[place * SECTOR_SIZE : (place + 1) * SECTOR_SIZE])

    def write(self, sector, data, _):
        count = self.sectors(sector, len(data))
        zone = self.zone_at(sector)
        if zone.type is ZoneType.SEQUENTIAL_REQUIRED:
            self.check_writable(zone)
            self.check_fits(zone, sector, count)
            if sector != zone.pointer:
                raise Refused(ZoneStatus.UNALIGNED_WP)
            self.advance(zone, count)
        self.put(sector, data)
        return b""

    def put(self, sector, data):
        self.store.data[sector * SECTOR_SIZE : sector * SECTOR_SIZE + len(data)] = data

    def append(self, sector, data, _):
        count = self.sectors(sector, len(data))
        most = self.zone_fields["max_append_sectors"]
        if not most:
            raise Refused(RequestStatus.UNSUPP)
        zone = self.zone_at(sector)
        self.check_append(zone, sector, count, most)
        self.check_writable(zone)
        place = zone.pointer
        if zone.written + count > ZONE_SECTORS:
            raise Refused(INVALID)
        self.advance(zone, count)
        self.put(place, data)
        return APPEND_ANSWER.build({"append_sector": place})

    def check_append(self, zone, sector, count, most):
        if zone.type is not ZoneType.SEQUENTIAL_REQUIRED:
            raise Refused(INVALID)
        if sector != zone.start:
            raise Refused(INVALID)
        if count > most:
            raise Refused(INVALID)

    def check_writable(self, zone):
        if zone.state in (ZoneState.READ_ONLY, ZoneState.OFFLINE):
            raise Refused(INVALID)

    def check_fits(self, zone, sector, count):
        if sector + count > zone.start + ZONE_SECTORS or zone.written + count > ZONE_SECTORS:
            raise Refused(INVALID)

    def advance(self, zone, count):
        if not count:
            return
        if zone.state not in OPEN_STATES:
            self.take_resources(zone)
            zone.state = ZoneState.IMPLICITLY_OPEN
        zone.written += count
        if zone.written == ZONE_SECTORS:
            zone.state = ZoneState.FULL

    def take_resources(self, zone):
        states = [other.state for other in self.store.zones]
        if sum(state in OPEN_STATES for state in states) >= MAX_OPEN:
            raise Refused(ZoneStatus.OPEN_RESOURCE)
        if zone.state not in ACTIVE_STATES and sum(state in ACTIVE_STATES for state in states) >= MAX_ACTIVE:
            raise Refused(ZoneStatus.ACTIVE_RESOURCE)

    # Zones

    def sequential(self, sector):
        zone = self.zone_at(sector)
        if zone.type is ZoneType.CONVENTIONAL:
            raise Refused(INVALID)
        return zone

    def report_zones(self, sector, _, room):
        if sector >= ZONE_COUNT * ZONE_SECTORS:
            raise Refused(INVALID)
        zones = self.store.zones[sector // ZONE_SECTORS :]
        zones = zones[: max(0, room - ZONE_REPORT.sizeof()) // ZONE_DESCRIPTOR.sizeof()]
        return ZONE_REPORT.build({"nr_zones": len(zones)}) + b"".join(map(self.describe, zones))

    def describe(self, zone):
        return ZONE_DESCRIPTOR.build(
            {
                "z_cap": ZONE_SECTORS,
                "z_start": zone.start,
                "z_wp": zone.pointer,
                "z_type": zone.type,
                "z_state": zone.state,
            }
        )

    def open(self, sector, *_):
        zone = self.sequential(sector)
        if zone.state is ZoneState.EXPLICITLY_OPEN:
            return b""
        if zone.state not in (ZoneState.EMPTY, ZoneState.IMPLICITLY_OPEN, ZoneState.CLOSED):
            raise Refused(INVALID)
        if zone.state is not ZoneState.IMPLICITLY_OPEN:
            self.take_resources(zone)
        zone.state = ZoneState.EXPLICITLY_OPEN
        return b""

    def close_zone(self, sector, *_):
        zone = self.sequential(sector)
        if zone.state not in OPEN_STATES:
            raise Refused(INVALID)
        zone.state = ZoneState.CLOSED if zone.written else ZoneState.EMPTY
        return b""

    def finish(self, sector, *_):
        zone = self.sequential(sector)
        if zone.state in (ZoneState.READ_ONLY, ZoneState.OFFLINE):
            raise Refused(INVALID)
        for place in range(zone.pointer, zone.start + ZONE_SECTORS):
            self.put(place, PATTERN * SECTOR_SIZE)
        zone.written = ZONE_SECTORS
        zone.state = ZoneState.FULL
        return b""

    def reset_zone(self, sector, *_):
        zone = self.sequential(sector)
        if zone.state in (ZoneState.READ_ONLY, ZoneState.OFFLINE):
            raise Refused(INVALID)
        zone.written = 0
        zone.state = ZoneState.EMPTY
        return b""

    def reset_all(self, *_):
        for zone in self.store.zones:
            if zone.state in (*ACTIVE_STATES, ZoneState.FULL):
                self.reset_zone(zone.start)
        return b""

    def erase(self, _, data, __):
        asked = DATA_RANGE.parse(data)
        if asked.flags:
            raise Refused(RequestStatus.UNSUPP)
        if asked.sector % ZONE_SECTORS or asked.num_sectors != ZONE_SECTORS:
            raise Refused(RequestStatus.IOERR)
        zone = self.zone_at(asked.sector)
        self.put(zone.start, bytes(ZONE_SECTORS * SECTOR_SIZE))
        return b"" if zone.type is ZoneType.CONVENTIONAL else self.reset_zone(asked.sector)


def zoned(cls=ZonedDisk, *, sequential=ZoneType.SEQUENTIAL_REQUIRED, **attributes):
    """What makes a disk of zones: each driver finds what the one before left."""
    kind = type(cls.__name__, (cls,), attributes)
    store = Store(sequential)
    return lambda memory: kind(memory, store)
