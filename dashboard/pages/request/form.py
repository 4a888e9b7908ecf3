"""The description of a page's request form, and texts of controls and addresses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dash.dependencies import Wildcard

from dashboard.state.address import AttackAddress, SaliencyAddress
from dashboard.state.context import Record
from dashboard.state.ids import make_id
from workers.requests.parameters import MethodDescription

# How images were picked; kept in the address so that the form shows it again.
PICKED = ("n", "seed", "label", "verdict", "where")
# Controls that write the address when they change, apart from those of parameters.
CONTROLS = ("models", "ids", "method", "target", "class")
PLAIN_TARGETS = ("prediction", "label")


@dataclass(frozen=True, kw_only=True)
class RequestForm:
    """The form of one page.

    Attributes:
        page: prefix of its ids, and name of the page's job controller.
        address: the page's kind of address; its defaults are left out of the address.
        methods: the registry that methods and parameters come from.
        target: label of the choice of a class, and the texts of `prediction`, `label` and `index` (another).
        display: names in the address that do not belong to the request.
        applies: whether a method reads a parameter, given the values of all.
        keeps_parameters: whether parameters that two methods share stay as they are when the method changes.
        guess: the class offered first when another one is to be named, for the page's record.
    """

    page: str
    address: type[SaliencyAddress | AttackAddress]
    methods: Mapping[str, MethodDescription]
    target: tuple[str, Mapping[str, str]]
    display: Sequence[str] = ()
    applies: Callable[[str, Mapping[str, Any]], bool] = lambda _name, _values: True
    keeps_parameters: bool = False
    guess: Callable[[Record], int] = lambda _page: 0

    def id(self, name: str) -> str:
        """The id of an element of the form."""
        return make_id(self.page, name)

    def parameter_id(self, name: str | Wildcard) -> dict[str, Any]:
        """The id of a parameter's control, or of all."""
        return {"page": self.page, "parameter": name}

    def about(self, search: str | None) -> str:
        """The request of an address as one text: equal if and only if the requests are."""
        leave_out = {*PICKED, *self.display, "attack", "at"}
        return urlencode(sorted(pair for pair in query_of(search).items() if pair[0] not in leave_out))


def merged(search: str | None, changes: Mapping[str, str]) -> str:
    """A query string with some values changed; an empty value removes the name. The browser does the same."""
    query = {name: value for name, value in (query_of(search) | dict(changes)).items() if value}
    return "?" + urlencode(query, safe=",") if query else ""


def query_of(search: str | None) -> dict[str, str]:
    """The values of a query string by name."""
    return dict(parse_qsl((search or "").lstrip("?"), keep_blank_values=True))


def values_of(method: MethodDescription, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all parameters of a method, with defaults for those not given."""
    return {one.name: given.get(one.name, one.default) for one in method.parameters}


def text_of(value: Any) -> str:
    """A control's value as its text; numbers have six digits."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value).strip()
