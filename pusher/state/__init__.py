"""Who should know what; no socket, no clock, no runtime."""
