"""For libraries that print and warn of what is no matter here."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither prints nor warnings are shown; one thread at a time.

    Which warnings are shown is a matter of the whole process, and netCDF's library
    must not be entered twice at once.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            yield
