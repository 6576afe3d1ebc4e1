"""The guest's drivers. A driver's state lives in guest RAM, so it moves with the guest: `start` it once, `resume` it
wherever the guest woke up.
"""
