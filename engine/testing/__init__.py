"""The contract kit: what every specialist and filter keeps to, checked over images and records that are made for it.

    from engine.testing import check_filter, check_specialist

    def test_it_keeps_the_contract():
        check_specialist(MySpecialist(min_score=0.5))

It needs no pytest. What is checked is an instance, with the parameters that matter, before `setup`. An AssertionError
names the rule that is broken, what was expected, what came, and what to do.

A specialist, over drawn and odd images with empty, full and hostile records: can be described, pickled and built again;
has a version and a licence; only appends, under its name and with fresh ids; gives what can be stored; says the same of
an image twice, alone or in a batch, under any seed, in another instance, and, if it reads the image alone, whatever the
record holds; and invents no score, box, mask, text or span.
A filter, with parameters by which something falls: can be described and pickled, is pure, and decides about what
stands, with a reason.
"""

from engine.testing.annotated import records
from engine.testing.filter import check_filter
from engine.testing.scenes import samples
from engine.testing.specialist import check_specialist

__all__ = ["check_filter", "check_specialist", "records", "samples"]
