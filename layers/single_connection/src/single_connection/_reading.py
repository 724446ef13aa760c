"""One reading of a secret: one end for all of it, and nothing secret in what it leaves behind."""

import _thread
import os

from ._clock import clock
from ._http import Exchange, UnreadableError
from ._latch import Latch
from ._route import route_of
from ._secretsmanager import SecretError, ask, ask_by_boto3
from .errors import CredentialsError

Pair = tuple[str, str]


def read_secret(secret_id: str, until: float) -> Pair:
    """User and password; the error is raised here, where no frame holds anything secret."""
    reading = _Reading(secret_id, until)
    pair, problem = reading.wait()
    if pair is None:
        raise CredentialsError(f"the secret {secret_id} {problem}")
    return pair


class _Reading:
    """One reading of a secret, in a thread of its own.

    A look-up of a name cannot be given an end, nor can all that boto3 does; a thread can be left
    alone. Nor does an exception out of a signal's handler strike there, where keys and passwords
    are local variables; what goes wrong there comes out as a sentence.
    """

    def __init__(self, secret_id: str, until: float) -> None:
        """Begin."""
        left = until - clock.now()
        self._end = until - min(0.1, left / 10)
        # The thread has its own end, a moment earlier, so that its words arrive.
        self._exchange = Exchange(until - min(0.3, left / 5))
        self._secret_id = secret_id
        self._pair: Pair | None = None
        self._problem = f"cannot be read {SecretError('no answer in time', 'network')}"
        self._done = Latch()

    def wait(self) -> tuple[Pair | None, str]:
        """User and password, or None and what is wrong, as the end of a sentence."""
        try:
            try:
                _thread.start_new_thread(self._run, ())  # a hanging look-up keeps no process
            except RuntimeError as error:  # "can't start new thread"
                return None, f"cannot be read ({error})"
            self._done.wait(self._end - clock.now())
        finally:
            self._exchange.abandon()
            self._done.wait(0.02)  # it is awake now, unless it is in a look-up or in boto3
        return self._pair, self._problem

    def _run(self) -> None:
        try:
            self._pair = _pair(self._text())
            self._problem = "is not a JSON object with the keys 'username' and 'password'"
        except SecretError as failure:
            self._problem = f"cannot be read {failure}"
        except BaseException as error:  # noqa: BLE001 - said by the thread that waits
            self._problem = f"cannot be read ({type(error).__name__})"
        finally:
            self._done.set()

    def _text(self) -> str | None:
        route = route_of(os.environ)
        if route is not None:
            try:
                return ask(route, self._secret_id, self._exchange)
            except UnreadableError:
                """Not an endpoint as AWS has them: boto3 knows more of them, and verifies too."""
        if (left := self._exchange.until - clock.now()) <= 0:
            raise SecretError("no answer in time", "network")
        return ask_by_boto3(self._secret_id, left)


def _pair(text: str | None) -> Pair | None:
    """User and password out of the secret's text, or None."""
    import json  # noqa: PLC0415 - as in _secretsmanager

    try:
        said = json.loads(text or "")
        pair = str(said["username"]), str(said["password"])
        for one in pair:
            one.encode()  # JSON may write half of a surrogate pair, which no server takes
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return pair if "" not in pair else None
