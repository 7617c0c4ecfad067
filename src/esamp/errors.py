"""Every error that `esamp` raises on purpose. Each says what is wrong and what to do about it."""


class EsampError(Exception):
    """Base of all errors of this package: ``except EsampError`` catches every one of them."""


class OptionError(EsampError):
    """An option has a wrong name, type or value. The message names the option, the value and what is allowed."""


class UnsupportedError(EsampError):
    """The request makes sense but this engine, model or decoding mode cannot carry it out."""


class InactiveMethodError(EsampError):
    """A decoding method that should have acted never did: its numbers would be those of plain sampling."""


class InputError(EsampError):
    """A prompt, file or data set cannot be used as it is."""


class RequestError(EsampError):
    """One request failed, and others of the same run may succeed: a run records it and goes on."""

    retry = False
    """whether the same request may succeed at another time"""


class PromptError(InputError, RequestError):
    """A prompt is empty, too long, refused by a filter or by the chat template."""


class RefusedError(OptionError, RequestError):
    """A server refuses a request for a reason that the message repeats, or its method cannot be used on its prompt."""


class UnansweredError(RequestError):
    """A request got no usable answer this time: it was aborted, timed out, or the server failed."""

    retry = True


class FailedRequestsError(EsampError):
    """Requests of a run failed: it stopped because of too many, or ended without them."""


class BusyError(InputError):
    """Another process is writing the file."""


class MissingDependencyError(EsampError):
    """An optional package is needed. The message carries the command that installs it."""
