"""Bytes to meaning and back; no socket, no clock, no runtime."""
