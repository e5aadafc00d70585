from shared.errors import ConfigError, QueueError


def test_config_error_names_every_problem() -> None:
    error = ConfigError(["[streams] listen: no port", "[api] listne: unknown key"])
    assert str(error).splitlines() == error.problems


def test_queue_error_has_a_reason_that_can_be_a_label() -> None:
    assert QueueError("disk-full", "3 bytes left").reason == "disk-full"
