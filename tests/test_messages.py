"""Messages as TensorFlow 2.21 and Keras 3 write them, and the one line that is shown."""

from __future__ import annotations

import pytest

from autoquant.messages import reason

RESHAPE = "Input to reshape is a tensor with 8 values, but the requested shape has 15"
MESSAGES = {
    "session": f"""Graph execution error:

Detected at node 'y' defined at (most recent call last):
    File "a.py", line 15, in <module>
    File "a.py", line 9, in build
Node: 'y'
{RESHAPE}
\t [[{{{{node y}}}}]]

Original stack trace for 'y':
  File "a.py", line 15, in <module>
""",
    "imported graph": f"""Graph execution error:

Detected at node 'y' defined at (most recent call last):
Node: 'y'
{RESHAPE}
\t [[{{{{node y}}}}]]

Original stack trace for 'y':
""",
    "function": f"""Graph execution error:

Detected at node Reshape defined at (most recent call last):
  File "a.py", line 28, in <module>

  File "a.py", line 27, in f

{RESHAPE}
\t [[{{{{node Reshape}}}}]] [Op:__inference_f_100]""",
    "loaded function": f"""Graph execution error:

Detected at node Reshape defined at (most recent call last):
<stack traces unavailable>
{RESHAPE}
\t [[{{{{node Reshape}}}}]] [Op:__inference_signature_wrapper_208]""",
    "several roots": f"""2 root error(s) found.
  (0) {RESHAPE}
\t [[{{{{node y}}}}]]
  (1) Something that follows from it.
0 successful operations.""",
    "eager": f"{{{{function_node __wrapped__Reshape_device_/job:localhost}}}} {RESHAPE} [Op:Reshape] name: ",
    "layer that is called": f"""Exception encountered when calling L.call().

\x1b[1m{{{{function_node __wrapped__Reshape_device_/job:localhost}}}} {RESHAPE} [Op:Reshape]\x1b[0m

Arguments received by L.call():
  • x=tf.Tensor(shape=(2, 4), dtype=float32)""",
    "layer that is made": f"""<class 'L'> could not be deserialized properly. Please ensure ...

config={{'module': None}}.

Exception encountered: {RESHAPE}""",
    "one line": RESHAPE,
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES.keys())
def test_the_reason_is_shown(message: str) -> None:
    assert reason(ValueError(message)) == RESHAPE


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            'in user code:\n\n    File "a.py", line 3, in g  *\n        f(x)\n\n    ValueError: No\n',
            "ValueError: No",
        ),
        ("Node 'a': Unknown input '{{node b}}'", "Node 'a': Unknown input ''b''"),
        ("Graph execution error:", "Graph execution error:"),
        ("", "ValueError"),
    ],
)
def test_other_messages(message: str, shown: str) -> None:
    assert reason(ValueError(message)) == shown
