"""Errors that a user can cause; cli.py maps each class to an exit code (DESIGN, Exit codes).

Every message names the file, what was found, what was expected, and the remedy.
"""


class PlainfilmError(Exception):
    """Anything that plainfilm raises on purpose."""


class ConfigError(PlainfilmError, ValueError):
    """A setting has a value that is not allowed."""


class InputError(PlainfilmError):
    """The inputs cannot be used: no radiographs, an empty class, an overlap of training and test sets."""


class RadiographError(InputError):
    """One file is not a usable radiograph; conversion rejects its row and goes on.

    code: one of loaders.images.files.REFUSALS.
    """

    def __init__(self, message: str, code: str = "damaged") -> None:
        super().__init__(message)
        self.code = code


class StorageError(PlainfilmError, OSError):
    """Reading or writing failed: disk full, not writable, file gone."""


class IntegrityError(PlainfilmError):
    """Bytes differ from what was written."""


class BetonError(IntegrityError):
    """A beton is corrupt, truncated, of a newer version, or not a beton."""


class CheckpointError(IntegrityError):
    """A checkpoint is corrupt, missing, or of another network."""


class LockedError(PlainfilmError):
    """Another process is writing here."""


class DivergedError(PlainfilmError):
    """The loss or a gradient stopped being finite; the last healthy state is kept."""


class Interrupted(PlainfilmError):
    """The user or the system asked to stop; the state is saved, and the run can be resumed."""
