"""The algebra by itself."""

import pytest

from coppice.methods.graph.terms import Cat, Fix, Mul, Term, Var, norm, same, variables
from coppice.methods.graph.unify import Algebra


def algebra() -> Algebra:
    return Algebra(lambda: "here")


def text(term: Term, names: dict[int, str]) -> str:
    term = norm(term)
    if isinstance(term, Fix):
        return str(term.size)
    if isinstance(term, Var):
        return names.setdefault(id(term), chr(ord("a") + len(names)))
    return "(" + ("*" if isinstance(term, Mul) else "+").join(text(p, names) for p in term.parts) + ")"


def test_flat_normal_form() -> None:
    a = Var(3)
    assert text(Mul([Fix(2), Mul([Fix(3), a]), Fix(1)]), {}) == "(6*a)"
    assert text(Cat([Fix(2), Cat([Fix(1), a]), Fix(0)]), {}) == "(3+a)"
    assert text(Mul([Fix(1), Fix(1)]), {}) == "1"


def test_variables_become_one() -> None:
    a, b = Var(4), Var(4)
    algebra().unify(a, b)
    assert norm(a) is norm(b)


def test_a_view_splits_and_joins() -> None:
    alg, a = algebra(), Var(12)
    heads, size = alg.reshape([Fix(2), a], [2, 3, 4])[1:]
    assert text(a, {}) == "(a*b)"
    assert same(alg.reshape([Fix(2), heads, size], [2, 12])[1], a)


def test_a_view_across_two_dimensions_splits_by_the_common_factor() -> None:
    alg, a = algebra(), Var(6)
    names: dict[int, str] = {}
    out = alg.reshape([a, Fix(4)], [3, 8])
    assert [text(t, names) for t in out] == ["a", "(b*4)"]
    assert text(a, names) == "(a*b)"


def test_a_view_that_does_not_fit_freezes() -> None:
    alg, a = algebra(), Var(6)
    out = alg.reshape([a, Fix(2)], [4, 3])
    assert not list(variables(a))
    assert [t.size for t in out] == [4, 3]


def test_concatenations_cut_each_other() -> None:
    alg, names = algebra(), {}
    a, b, c, d = Var(5), Var(3), Var(2), Var(6)
    alg.unify(Cat([a, b]), Cat([c, d]))
    assert [text(t, names) for t in (a, b, c, d)] == ["(a+b)", "c", "a", "(b+c)"]


def test_products_refine_each_other() -> None:
    alg, names = algebra(), {}
    a, b, c, d = Var(4), Var(6), Var(8), Var(3)
    alg.unify(Mul([a, b]), Mul([c, d]))
    assert [text(t, names) for t in (a, b, c, d)] == ["a", "(b*c)", "(a*b)", "c"]


def test_copies_meet_a_concatenation() -> None:
    alg, names = algebra(), {}
    a, b, c = Var(4), Var(4), Var(4)
    alg.unify(Mul([Fix(2), a]), Cat([b, c]))
    assert len({text(t, names) for t in (a, b, c)}) == 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda a, b: a, lambda a, b: Fix(6)),
        (lambda a, b: Mul([a, b]), lambda a, b: Fix(36)),
        (lambda a, b: Mul([a, b]), lambda a, b: Cat([Var(30), Var(6)])),
        (lambda a, b: Mul([a, b]), lambda a, b: Mul([Var(4), Var(9)])),
    ],
)
def test_what_cannot_be_brought_together_is_frozen_with_a_reason(left, right) -> None:  # type: ignore[no-untyped-def]
    alg, a, b = algebra(), Var(6), Var(6)
    one, other = left(a, b), right(a, b)
    alg.unify(one, other)
    if isinstance(one, Mul) and isinstance(other, Mul):
        assert all(v.size in (2, 3) for v in variables(one))
    else:
        assert not list(variables(one))
        assert not list(variables(other))
    end = a
    while isinstance(end, Var) and end.to is not None:
        end = end.to  # type: ignore[assignment]
    assert not isinstance(end, Fix) or end.reason in ("here", "")


def test_a_term_is_never_part_of_itself() -> None:
    alg, a = algebra(), Var(4)
    alg.unify(a, Cat([a, Fix(0)]))
    alg.unify(a, Mul([a, Fix(1)]))
    assert list(variables(a)) == [a]


def test_marks_survive_binding_and_splitting() -> None:
    alg, a, b = algebra(), Var(6), Var(6)
    alg.mark(b, "layernorm")
    alg.unify(a, b)
    parts = alg.factor(a, 2)
    assert parts is not None
    assert all(v.marks == {"layernorm"} for p in parts for v in variables(p))


def test_describing_is_lazy() -> None:
    def fail() -> str:
        raise AssertionError("called although nothing was frozen")

    alg = Algebra(fail)
    alg.unify(Var(4), Var(4))
    assert len(alg.reshape([Var(6)], [2, 3])) == 2
