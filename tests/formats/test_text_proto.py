from __future__ import annotations

from typing import Any

import pytest

from autoquant.errors import PlanError
from autoquant.formats.text_proto import message_class, parse_text

SCHEMA = """
syntax = "proto2";
enum Kind {
  A = 0;
  B = 1;
}
message Top {  // a comment
  optional uint32 count = 1;
  repeated string names = 2;
  oneof one {
    Part part = 3;
    Part other = 4;
  }
  optional Kind kind = 5;
}
message Part {
  optional double size = 1;
}
"""


def read(text: str, *, oneofs: bool = True, last_wins: bool = False) -> Any:
    message = message_class(SCHEMA, "Top", oneofs=oneofs)()
    parse_text(text, message, "f.cfg", what="is not a Top", hint="correct it", last_wins=last_wins)
    return message


def test_a_message() -> None:
    message = read('count: 3 names: "a" names: "b"  # a comment\nkind: B part { size: 0.1 }')
    assert message.count == 3
    assert list(message.names) == ["a", "b"]
    assert message.kind == 1
    assert message.part.size == 0.1
    assert message.HasField("part") and not message.HasField("other")


def test_of_a_oneof_the_last_one_counts() -> None:
    message = read("part { size: 1 } other { size: 2 }", last_wins=True)
    assert not message.HasField("part") and message.other.size == 2
    both = read("part { size: 1 } other { size: 2 }", oneofs=False)
    assert both.part.size == 1 and both.other.size == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 1\n  cuont: 2", 'f.cfg:2:3: is not a Top: Message type "Top" has no field named "cuont".; correct it'),
        ("count: 1 count: 2", 'f.cfg:1:17: is not a Top: Message type "Top" should not have multiple "count" fields.'),
        ("part {} part {}", 'f.cfg:1:14: is not a Top: Message type "Top" should not have multiple "part" fields.'),
        ("part {} other {}", 'f.cfg:1:9: is not a Top: Field "other" is specified along with field "part"'),
        ("kind: C", "f.cfg:1:7: is not a Top: "),
        ("count: -1", "f.cfg:1:8: is not a Top: "),
        ("part {", "f.cfg:1:6: is not a Top: "),
        (r'names: "a\c"', "f.cfg: is not a Top: "),
    ],
)
def test_where_a_text_is_wrong(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        read(text)
    assert str(caught.value).startswith(message)


def test_a_schema_of_other_lines_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is not a line of a \.proto file: +extensions 1 to 5 6 7;"):
        message_class("message Top {\n extensions 1 to 5 6 7;\n}", "Top")
