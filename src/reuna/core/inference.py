"""Where a release answers: at the edge, at the fog, or at the edge with the fog for what it is unsure of.

    [inference]
    place = "edge-then-fog"
    fog_project = "pumps-big"    # whose release answers at the fog
    unsure_below = 0.8           # confidence below which it is asked; 1: for every window
    fog_timeout_s = 2            # after that the edge answers by itself

A release with ``place = "fog"`` is run by fogs alone. What an edge says when the fog does not answer is
what `[fallback]` declares: its own answer, or the safe one where that is below ``min_confidence``. The rules
travel among the settings of a run, so they are in the lineage of its release.

>>> rules = Inference("edge-then-fog", "pumps-big", unsure_below=0.8)
>>> doubt(rules, 0.62), doubt(rules, 0.9), doubt(rules, None)
('confidence 0.62 is below 0.8', '', '')
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from reuna.core.errors import SettingsError
from reuna.core.foreign import UNREADABLE, shown
from reuna.core.records import Setting
from reuna.core.settings import Option, between, one_of

KEY = "inference"  #: of the rules among the settings
Place = Literal["edge", "fog", "edge-then-fog"]
PLACES: tuple[Place, ...] = ("edge", "fog", "edge-then-fog")


class Inference(msgspec.Struct, frozen=True, omit_defaults=True):
    """See the module's text."""

    place: Place = "edge"
    fog_project: str = ""
    unsure_below: float = 0.8
    fog_timeout_s: float = 2.0

    @property
    def asks(self) -> bool:
        """Whether windows go to the fog."""
        return self.place == "edge-then-fog"


OPTIONS = (
    Option(
        "inference.place",
        str,
        "edge",
        "where a release answers: `edge`; `fog`: there alone, for the edges of other projects; or "
        "`edge-then-fog`: at the edge, and what it is unsure of at the fog",
        check=one_of(*PLACES),
    ),
    Option("inference.fog_project", str, "", "project whose release answers at the fog"),
    Option(
        "inference.unsure_below",
        float,
        Inference().unsure_below,
        "probability of the likeliest class below which the fog is asked; 1: for every window",
        check=between(0, 1),
    ),
    Option(
        "inference.fog_timeout_s",
        float,
        Inference().fog_timeout_s,
        "how long the edge waits for the fog before it answers by itself",
        "s",
        between(0.01, 600),
    ),
)


def doubt(rules: Inference, confidence: float | None) -> str:
    """Why the fog is to be asked about a window that the edge has answered; '' when it is not.

    Outputs that are no probabilities have no ``confidence``: only who asks for every window asks for those.
    """
    if not rules.asks:
        return ""
    if rules.unsure_below >= 1:
        return "every window is for the fog"
    if confidence is None or confidence >= rules.unsure_below:
        return ""
    return f"confidence {confidence:.3g} is below {rules.unsure_below:g}"


def odd(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with rules that are right of themselves: lines that name a setting."""
    place, project = values["inference.place"], values["inference.fog_project"]
    if place == "edge-then-fog" and not project:
        yield "inference.fog_project is missing: name the project whose release answers at the fog"
    elif place == "edge-then-fog" and project == values["project.name"]:
        yield "inference.fog_project is this project; the model at the fog is a project of its own"
    elif place != "edge-then-fog" and project:
        yield f'inference.fog_project is set, but inference.place is "{place}": nothing would be asked'


def inference_of(values: Mapping[str, Any]) -> Inference:
    """The rules that the checked values of `reuna.toml` say."""
    return Inference(*(values[f"{KEY}.{name}"] for name in Inference.__struct_fields__))


def as_settings(rules: Inference) -> dict[str, Setting]:
    """The rules as they stand among a run's settings; nothing when none were declared."""
    return {} if rules == Inference() else {KEY: msgspec.json.encode(rules).decode()}


def inference(settings: Mapping[str, Setting]) -> Inference:
    """The rules among a run's settings. Raises `SettingsError` for a text that is none of ours."""
    text = settings.get(KEY)
    if text is None:
        return Inference()
    try:
        return msgspec.json.decode(str(text), type=Inference)
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise SettingsError(f"where a release answers cannot be read: {shown(str(error))}") from error
