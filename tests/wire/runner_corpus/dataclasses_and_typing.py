import dataclasses
import enum
import typing


@dataclasses.dataclass
class Item:
    name: str
    parent: "typing.Optional[Item]" = None


class Colour(enum.Enum):
    RED = 1


Pair = typing.NamedTuple("Pair", [("a", int)])
print(Item("x", Item("y")), typing.get_type_hints(Item), Colour.RED, Pair(1), repr(Pair.__module__))
