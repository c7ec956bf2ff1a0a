"""A site's outcomes file: what is taken, and what is refused, by line and column and never by value."""

from __future__ import annotations

import pytest

from models import outcomes
from models.errors import BadInput

MODEL = "some-model@1.0.0"
GOOD = "id,logit,time,event\na,-1.5,12,1\nb,0.25,60.5,0\n"


def test_the_order_of_the_file_does_not_matter() -> None:
    lines = GOOD.splitlines()
    one = outcomes.read(GOOD.encode(), MODEL)
    other = outcomes.read("\r\n".join([lines[0], lines[2], lines[1]]).encode(), MODEL)
    assert one.logit.tolist() == other.logit.tolist()
    assert one.event.tolist() == other.event.tolist()
    assert sorted(one.logit) == [-1.5, 0.25]
    assert one.digest != other.digest


def test_risks_are_taken_as_logits_and_other_columns_are_passed_over() -> None:
    read = outcomes.read(b"\xef\xbb\xbfsite,id,p,time,event,model\nx,a,0.5,12,1,some-model@1.0.0\n", MODEL)
    assert (read.logit.tolist(), read.time.tolist(), read.event.tolist()) == ([0.0], [12.0], [True])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "column id is missing (at the header)"),
        ("id,logit,event\na,1,1\n", "column time is missing (at the header)"),
        ("id,Logit,time,event\na,1,1,1\n", "one of the columns logit and p is needed, not both (at the header)"),
        ("id,logit,p,time,event\na,1,.5,1,1\n", "one of the columns logit and p is needed, not both (at the header)"),
        ("id,time,p,time,event\na,1,.5,1,1\n", "column time stands twice (at the header)"),
        ("id,logit,time,event\n", "the outcomes file has no patients"),
        (GOOD + "a,0,3,0\n", "this id stood on an earlier line already (at line 4)"),
        (GOOD + " a ,0,3,0\n", "this id stood on an earlier line already (at line 4)"),
        (GOOD + ",0,3,0\n", "id is empty (at line 4)"),
        (GOOD + "c,nan,3,0\n", "logit is not a number (at line 4)"),
        (GOOD + "c,inf,3,0\n", "logit is not a number (at line 4)"),
        (GOOD + "c,1e3,3,0\n", "logit is not between -30 and 30 (at line 4)"),
        (GOOD + "c,0,-3,0\n", "time is not between 0 and 1200 (at line 4)"),
        (GOOD + "c,0,0,0\n", "time is 0: there is no follow-up (at line 4)"),
        (GOOD + "c,0,,0\n", "time is not a number (at line 4)"),
        (GOOD + "c,0,3,yes\n", "event is not a number (at line 4)"),
        (GOOD + "c,0,3,2\n", "event is not one of 0, 1 (at line 4)"),
        (GOOD + "c,0,3\n", "the row does not have as many cells as the header (at line 4)"),
        (GOOD + "c,0,3,1,9\n", "the row does not have as many cells as the header (at line 4)"),
        ("id,p,time,event\na,1.2,3,0\n", "p is not between 0 and 1 (at line 2)"),
        ("id,p,time,event\na,1,3,0\n", "p is 0 or 1, which is no risk (at line 2)"),
        (
            "id,p,time,event,model\na,.1,3,0,other@1\n",
            "this answer was not given by the version that is recalibrated (at line 2)",
        ),
        ('id,p,time,event\n"a,.1,3,0\n', "the outcomes file is not CSV"),
    ],
)
def test_what_is_wrong_is_named_and_never_quoted(text: str, what: str) -> None:
    with pytest.raises(BadInput) as caught:
        outcomes.read(text.encode(), MODEL)
    assert str(caught.value) == what


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(BadInput, match="not UTF-8"):
        outcomes.read("id,p,time,event\n\xe4,.1,3,0\n".encode("latin-1"), MODEL)
