"""The one error family of planish; standard library only: artefacts load without the rest."""

import warnings


class PlanishError(Exception):
    """Base of every error that planish raises on purpose.

    A message says what is wrong, where (the ONNX node's or file's name), what was expected and
    found, and what to do next.
    """


class UnsupportedModel(PlanishError):
    """The model is valid ONNX, but holds something that planish does not compile yet."""


class InvalidModel(PlanishError):
    """The model file is broken, hostile or not ONNX."""


class InvalidGraph(PlanishError):
    """A graph of ours breaks a rule of the IR (found by inference or the verifier)."""


class PassError(PlanishError):
    """A pass failed, or returned a graph that the verifier rejects; names the pass."""


class CustomPassError(PassError):
    """A pass that is not one of planish's failed: its author can mend it."""


class ScheduleError(PlanishError):
    """A schedule directive is not legal for the kernel; says which and why."""


class TargetError(PlanishError):
    """The target is unknown, or its tool chain is missing or refuses the code."""


class TuningError(PlanishError):
    """Tuning or its log failed."""


class ArtefactError(PlanishError):
    """An artefact is damaged, is for other hardware, or is called with the wrong tensors."""


class TensorError(ArtefactError, ValueError):
    """A model was given an input or output of the wrong name, dtype, shape or kind."""


class PlanishNote(UserWarning):
    """Something that was asked for and changes nothing; the command line prints it."""


def note(text: str) -> None:
    """Tells the caller of what is no error."""
    warnings.warn(text, PlanishNote, stacklevel=2)
