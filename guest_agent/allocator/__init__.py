"""The guest's page allocator: a buddy system in guest RAM."""

from guest_agent.allocator.buddy import BuddyAllocator, Shrinker

__all__ = ["BuddyAllocator", "Shrinker"]
