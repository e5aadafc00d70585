"""pusher: takes mailbox events and tells open pages and phones at once."""
