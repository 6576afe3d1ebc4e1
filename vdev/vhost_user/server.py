"""Serve a device to vhost-user front ends."""
