"""Errors that a person reads: one line that says what is wrong and how to mend it."""


class LabError(Exception):
    """Base of every error that the lab raises on purpose; its text is shown without a traceback."""


class ConfigurationError(LabError):
    """A setting, an argument or an address can't be used as given; trying again unchanged won't help."""


class WiringError(ConfigurationError):
    """A wiring table contradicts itself: a duplicate row, a dead end, an unheard event, a missing undo."""


class BrokerError(LabError):
    """The broker can't be reached, or refuses what the lab needs of it."""


class UnreadableRecordError(LabError):
    """A record isn't one of the lab's messages: a header is missing, or the body doesn't fit its type."""


class NewerSchemaError(UnreadableRecordError):
    """A record is of a newer major version of its schema than this service knows."""


class TransientError(LabError):
    """A message could not be processed this time; trying again later may help."""


class PermanentError(LabError):
    """A message can't be processed; trying again won't help."""


class OverloadedError(LabError):
    """More is committed than can be published: it waits for the broker, and nothing is added to it."""
