"""A signal's handler that raises an OSError, as a TimeoutError, is not the network's doing."""

import os
import ssl

import pymysql

# Whose frames are the last ones of an error that came of what was said, or of the network.
_SPEAKING = (
    os.path.dirname(os.path.dirname(__file__)),
    os.path.dirname(pymysql.__file__),
    os.path.dirname(ssl.__file__),
)


def alarm_behind(error: BaseException) -> BaseException | None:
    """The error that code outside of the layer and the driver raised into them, if that is it.

    PyMySQL takes every OSError for a lost connection, the one of a handler's own alarm included.
    """
    if not isinstance(error, Exception):
        return error
    for one in (error, getattr(error, "original_exception", None), error.__context__):
        if isinstance(one, Exception) and one.__traceback__ is not None:
            trace = one.__traceback__
            while trace.tb_next is not None:
                trace = trace.tb_next
            if not trace.tb_frame.f_code.co_filename.startswith(_SPEAKING):
                return one
    return None


def let_out(error: BaseException) -> None:
    """Raise the alarm that is behind `error`, if one is."""
    if (alarm := alarm_behind(error)) is not None:
        raise alarm
