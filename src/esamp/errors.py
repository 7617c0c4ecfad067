"""The errors that `esamp` raises on purpose. Each message says what is wrong and what to do about it."""


class EsampError(Exception):
    """Base of all errors of this package: ``except EsampError`` catches every one of them."""


class OptionError(EsampError):
    """An option has a wrong name, type or value. The message names the option, the value and what is allowed."""


class UnsupportedError(EsampError):
    """This engine, model or decoding mode cannot do what was requested, although another may."""


class InactiveMethodError(EsampError):
    """A decoding method should have acted and did not, so its results would be those of plain sampling."""


class InputError(EsampError):
    """A prompt, file, model or data set cannot be used."""


class RequestError(EsampError):
    """One request failed. Others of the same run may succeed, so a run records the failure and goes on."""

    retry = False
    """whether the same request may succeed at another time"""


class PromptError(InputError, RequestError):
    """A prompt is empty, too long, refused by a filter or by the chat template."""


class RefusedError(OptionError, RequestError):
    """A server refused a request, for the reason in the message, or a method cannot be used on a prompt."""


class UnansweredError(RequestError):
    """A request got no usable answer this time: it was aborted, timed out, or the server failed."""

    retry = True


class FailedRequestsError(EsampError):
    """Requests of a run failed. The run stopped because of their number, or ended without their samples."""


class BusyError(InputError):
    """Another process is writing the file."""


class MissingDependencyError(EsampError):
    """An optional package is not installed. The message has the command that installs it."""
