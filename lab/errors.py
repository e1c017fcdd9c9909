"""Failures that a user can see.

Every message is one line that names the value, the place and the remedy. A script prints it as
`error: MESSAGE` and exits with code 2. A run that had started also leaves a crash card, whose
`error.kind` is the class's `kind` (the list is `lab.schema.ERROR_KINDS`).
"""


class LabError(Exception):
    """A failure a user can see; the CLI prints its message as one line and exits with code 2."""

    kind = "exception"


class SettingError(LabError):
    """An environment variable, a constant or an argument has a value that cannot be used."""

    kind = "setting"


class DataError(LabError):
    """A data set, a cache or a download is missing, damaged or cannot be fetched."""

    kind = "data"


class DeviceError(LabError):
    """The device asked for is not there or cannot do what was asked of it."""

    kind = "device"


class StoreError(LabError):
    """A file of the commons or of a run cannot be read or written."""


class HeldError(StoreError):
    """A lock is held by somebody else for longer than was to be waited."""


class LeaseError(LabError):
    """A claim of an experiment is over, or somebody else's: what was to be done with it is refused."""


class CardError(LabError, ValueError):
    """A card breaks the schema, or does not exist."""


class DivergedError(LabError):
    """The loss became NaN, infinite or exploded: the run cannot produce a result."""

    kind = "diverged"
