"""Paper cards: what a paper claims and publishes, each with its source, in one YAML file a paper.

A card, `rec_utils/papers/cards/<id>.yaml`, has these keys (all required unless a default is given):

    id, name, notebook, title, authors, venue, arxiv, code, licence, summary   strings
    profiles    {smoke: {...}, laptop: {...}, paper: {...}}: sizes of a run, free names, the same in all three
    estimates   {profile: text}: cost expected where no record has measured it yet (default: none)
    claims      list of claims, see `Claim`
    published   list of the paper's numbers, see `Published`

A paper may have several notebooks, each with a card. All but one of these cards say `paper: <id of that one>`
in place of name, title, authors, venue, arxiv, code and licence, which they take from it; so each of these
stands in one place.

Three rules are built into the schema. A tolerance band that contains the null value is refused, since it
would accept "no effect" as a match. The band must lie on the side of the null that the claim asserts.
A published number needs a source that somebody has read (`mark: code` or `mark: source`); a recalled one
cannot be written down.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rec_utils.errors import UserError
from rec_utils.settings import CARDS, PROFILES, check_choice

Text = Annotated[str, Field(min_length=1)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]

#: What a card takes from the card that it names as its `paper`.
INHERITED = ("name", "title", "authors", "venue", "arxiv", "code", "licence")


class _Strict(BaseModel):
    """No unknown keys, no conversions: `1e-3`, which YAML reads as a string, is an error and not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Source(_Strict):
    """Where a claim or a number was read."""

    where: Text  #: short name or address of what was read
    mark: Literal["code", "source", "ours"]  #: official code, a text about the paper, or a claim of our own


class Claim(_Strict):
    """One statement that a number of a run can support or refute."""

    id: Slug
    text: Text  #: the statement, readable on its own
    source: Source
    metric: Text  #: what is measured, with its formula if it is not obvious
    unit: str  #: of value, null and band; "" for a pure number
    null_value: (
        Finite  #: where the claim would be empty, for example a gain of 0 (YAML keeps `null` for itself)
    )
    direction: Literal["greater", "less"]  #: side of the null on which the claim puts the value
    band: list[float]  #: [low, high] of the values that match the paper; one end may be .inf
    note: str = ""  #: how the band was chosen, and whatever a reader must know
    not_testable: str = ""  #: the reason, for a claim that no run of this version can test

    @property
    def ours(self) -> bool:
        """True for a control of our own, which stands apart from what the paper claims."""
        return self.source.mark == "ours"

    @field_validator("band")
    @classmethod
    def _band_excludes_null(cls, band: list[float], info: ValidationInfo) -> list[float]:
        if not {"id", "null_value", "direction"} <= info.data.keys():
            return band  # those keys are at fault themselves
        null, direction = info.data["null_value"], info.data["direction"]
        name = f"claim {info.data['id']!r}: band {band}"
        if len(band) != 2 or any(map(math.isnan, band)) or band[0] >= band[1]:
            raise ValueError(f"{name} is not [low, high]")
        if band[0] <= null <= band[1]:
            raise ValueError(f"{name} contains the null {null:g}, so it would accept no effect as a match")
        if (band[0] > null) != (direction == "greater"):
            raise ValueError(f"{name} contradicts direction {direction!r} from the null {null:g}")
        return band


class Published(_Strict):
    """One cell of the paper's tables; `value` is left out where nobody could read it."""

    id: Slug
    table: Text
    cell: Text  #: what stands in the row and column
    unit: str = ""
    value: Finite | None = None
    source: Source | None = None

    @model_validator(mode="after")
    def _value_has_source(self) -> Self:
        if (self.value is None) != (self.source is None):
            raise ValueError(f"published {self.id!r}: a value needs a source, and a source a value")
        if self.source is not None and self.source.mark == "ours":
            raise ValueError(f"published {self.id!r}: mark 'ours' cannot be the source of a published number")
        return self


class Card(_Strict):
    """All that is known before a run of one notebook: about its paper, and about what the run tests."""

    id: Slug
    paper: Slug = ""  #: id of the card that the keys of `INHERITED` were taken from; "" if they are its own
    name: Text  #: what the paper calls its method
    notebook: Text
    title: Text
    authors: Text
    venue: Text
    arxiv: Text
    code: Text  #: the official implementation and its commit
    licence: Text  #: of that implementation and what follows from it
    summary: Text
    profiles: dict[str, dict[str, Any]]
    estimates: dict[str, Text] = {}
    claims: Annotated[list[Claim], Field(min_length=1)]
    published: list[Published] = []

    @field_validator("claims", "published")
    @classmethod
    def _unique_ids(cls, entries: list) -> list:
        ids = [entry.id for entry in entries]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"id {name!r} is used twice")
        return entries

    @field_validator("profiles")
    @classmethod
    def _same_names(cls, profiles: dict[str, dict]) -> dict[str, dict]:
        if set(profiles) != set(PROFILES):
            raise ValueError(f"must be exactly {', '.join(PROFILES)}")
        names = set(profiles["laptop"])
        for profile, sizes in profiles.items():
            if set(sizes) != names:
                odd = ", ".join(sorted(names ^ set(sizes)))
                raise ValueError(f"{profile!r} and 'laptop' must have the same names; they differ in {odd}")
        return profiles

    @field_validator("estimates")
    @classmethod
    def _known_profiles(cls, estimates: dict[str, str]) -> dict[str, str]:
        for profile in estimates:
            if profile not in PROFILES:
                raise ValueError(f"{profile!r} is not one of {', '.join(PROFILES)}")
        return estimates

    def claim(self, claim_id: str) -> Claim:
        """The claim of that id; `UserError` with the nearest spelling if there is none."""
        check_choice(f"card {self.id}: claim", claim_id, [claim.id for claim in self.claims])
        return next(claim for claim in self.claims if claim.id == claim_id)

    def sizes(self, profile: str, **overrides: Any) -> dict[str, Any]:
        """Sizes of `profile`; an override of None keeps the card's value.

        Raises `UserError` for an unknown profile, an unknown name or a value of another type (a size that
        the card leaves null, "no limit", takes any).
        """
        check_choice("profile", profile, PROFILES)
        sizes = dict(self.profiles[profile])
        for name, value in overrides.items():
            check_choice(f"card {self.id}: size", name, list(sizes))
            if value is None:
                continue
            wanted, got = type(sizes[name]), type(value)
            if sizes[name] is not None and got is not wanted and (wanted, got) != (float, int):
                raise UserError(
                    f"card {self.id}: size {name} must be {wanted.__name__}, not {got.__name__} {value!r}"
                )
            sizes[name] = value
        return sizes


def card_ids() -> list[str]:
    """Ids of the cards that exist."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


def load_card(card_id: str) -> Card:
    """Read and validate the card of that id; `UserError` if it does not exist or breaks a rule."""
    check_choice("card", card_id, card_ids())
    return read_card(CARDS / f"{card_id}.yaml")


def read_card(path: Path) -> Card:
    """Read and validate a card file; the card that it names as its `paper` stands beside it.

    `UserError` names the file, the line and the key at fault.
    """
    fields, lines = _parse(path)
    if isinstance(fields, dict) and "paper" in fields:
        fields = _inherited(fields, path, lines) | fields
    try:
        card = Card.model_validate(fields)
    except ValidationError as error:
        raise UserError(_first_fault(error, path.name, lines)) from None
    if card.id != path.stem:
        line = lines[("id",)]
        raise UserError(f"{path.name}, line {line}: id {card.id!r} must be the file's name {path.stem!r}")
    return card


def _parse(path: Path) -> tuple[Any, dict[tuple, int]]:
    """What a YAML file says, and the line of every key and list entry."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        return loader.construct_document(root) if root else None, _lines(root, path.name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path.name}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None


def _inherited(fields: dict, path: Path, lines: dict[tuple, int]) -> dict[str, str]:
    """The keys of `INHERITED` of the card that `fields` names as its paper."""
    paper, where = fields["paper"], f"{path.name}, line {lines[('paper',)]}"
    for key in INHERITED:
        if key in fields:
            line = lines[(key,)]
            raise UserError(
                f"{path.name}, line {line}: key {key!r} comes from card {paper!r}; leave it out here"
            )
    others = sorted(each.stem for each in path.parent.glob("*.yaml") if each != path)
    try:
        check_choice("paper", paper, others)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    source = path.with_name(f"{paper}.yaml")
    above, _ = _parse(source)
    if isinstance(above, dict) and "paper" in above:
        raise UserError(f"{where}: card {paper!r} has no {INHERITED[0]} of its own either, but names a paper")
    card = read_card(source)
    return {key: getattr(card, key) for key in INHERITED}


def _lines(node: yaml.Node | None, file: str, at: tuple = ()) -> dict[tuple, int]:
    """Line number of every key and list entry, by its path; refuses a key that stands twice."""
    lines = {at: node.start_mark.line + 1 if node else 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*at, key.value)
            if path in lines:
                raise UserError(f"{file}, line {key.start_mark.line + 1}: key {key.value!r} stands twice")
            lines |= _lines(value, file, path)
            lines[path] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines |= _lines(value, file, (*at, index))
    return lines


def _first_fault(error: ValidationError, file: str, lines: dict[tuple, int]) -> str:
    """One validation error in one sentence; a missing key is reported at its parent's line."""
    # a misspelt key is both unknown and missing: the former says more
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    known = fault["loc"]
    while known not in lines:
        known = known[:-1]
    key = ".".join(map(str, fault["loc"]))
    text = fault["msg"].removeprefix("Value error, ")
    match fault["type"]:
        case "missing":
            message = f"key {key!r} is missing"
        case "extra_forbidden":
            message = f"unknown key {key!r}"
        case "value_error":
            message = text
        case _:
            message = f"{key}: {text[0].lower()}{text[1:]}, not {fault['input']!r}"
    return f"{file}, line {lines[known]}: {message}"
