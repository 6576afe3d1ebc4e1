"""A toy to explore: two counters, a lock, and actors that step through little programs over shared variables."""

from hashlib import blake2b

from vdev.race.verdict import Act


class Toy:
    """Actors run programs of ("load", x), ("store", x) on their own register, which a store writes plus one.

    `wanted` is what the variables must hold at the end, or they are lost. The invariant "no-load-of N" is broken by a
    load that reads N.
    """

    def __init__(self, programs, wanted=None, never_loaded=None):
        self.programs = programs
        self.wanted = wanted or {}
        self.never_loaded = never_loaded
        self.at = [0] * len(programs)
        self.registers = [0] * len(programs)
        self.values = dict.fromkeys(sorted({name for program in programs for _, name in program}), 0)
        self.broken = ()

    def enabled(self):
        return [
            Act(f"actor {number}", self.programs[number][at][0], number)
            for number, at in enumerate(self.at)
            if at < len(self.programs[number])
        ]

    def _step(self, act):
        return self.programs[act.page][self.at[act.page]]

    def do(self, act):
        what, name = self._step(act)
        self.broken = ()
        if what == "load":
            self.registers[act.page] = self.values[name]
            if self.values[name] == self.never_loaded:
                self.broken = ("no-load-of",)
        else:
            self.values[name] = self.registers[act.page] + 1
        self.at[act.page] += 1

    def key(self):
        return blake2b(repr(self.capture()).encode(), digest_size=16).digest()

    def capture(self):
        return tuple(self.at), tuple(self.registers), tuple(self.values.items())

    def put_back(self, state):
        at, registers, values = state
        self.at, self.registers, self.values = list(at), list(registers), dict(values)

    def independent(self, one, other):
        (what, name), (other_what, other_name) = self._step(one), self._step(other)
        return one.page != other.page and (name != other_name or what == other_what == "load")

    @property
    def lost(self):
        if self.enabled():
            return ()
        return tuple(number for number, (name, value) in enumerate(self.wanted.items()) if self.values[name] != value)
