"""Devices that models run on: built-ins, the user's `devices.yaml`, and the environment that a time belongs to.

Start reading at `device.Device` and `resolve.resolve_device`.
"""
