"""The guest: one vCPU whose kernel-like state lives in guest RAM, and the drivers that use the host's devices."""
