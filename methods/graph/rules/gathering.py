"""Reading and writing along one dimension by numbers: gather, scatter, and sums of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from coppice.methods.graph.rules.common import (
    SPATIAL,
    Args,
    Kwargs,
    argument,
    freeze_axes,
    rearranged,
    rebuilt,
    run,
    tensors,
    written,
)
from coppice.methods.graph.terms import Fix, Term, norm
from coppice.methods.graph.watch import Handler, Value, Watch

BY_NUMBER = "entries that are told apart by their number"


def _inside(watch: Watch, whole: Value, part: Value, at: int) -> None:
    """Unify the dimensions of an index with those of what it is an index of; where it takes only a part, freeze."""
    for position, (dim, mine) in enumerate(zip(whole.dims, part.dims, strict=True)):
        if position == at:
            continue
        if dim.size == mine.size:
            watch.algebra.unify(dim, mine)
        else:
            freeze_axes(watch, whole, [position])
            freeze_axes(watch, part, [position])


def index_select(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Some entries of one dimension."""
    out = run(watch, func, args, kwargs)
    x, index = watch.value(args[0]), watch.value(args[2])
    if not x.dims:
        watch.put(out, [], (x, index))
        return out
    watch.uses(x)
    rebuilt(watch, x, out, [args[1]]).deps |= index.deps | index.bit
    return out


def gather(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """`out[i][j] = x[index[i][j]][j]`: the dimension of the numbers is frozen, the others are those of both tensors."""
    out = run(watch, func, args, kwargs)
    x, index = watch.value(args[0]), watch.value(args[2])
    if not x.dims:
        watch.put(out, index.dims, (x, index))
        return out
    at = args[1] % len(x.dims)
    freeze_axes(watch, x, [at])
    watch.uses(x)
    _inside(watch, x, index, at)
    order = [None if i == at else i for i in range(len(x.dims))]
    rearranged(watch, x, out, list(index.dims), order).deps |= index.deps | index.bit
    return out


def scatter(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """`x[index[i][j]][j] = source[i][j]`, or added to it, or reduced with it."""
    x, index = watch.value(args[0]), watch.value(args[2])
    source = argument(args, kwargs, 3, "src")
    given = watch.value(source) if isinstance(source, Tensor) else None
    at = args[1] % max(len(x.dims), 1)
    if x.dims:
        _inside(watch, x, index, at)
        if given is not None and given.dims:
            _inside(watch, given, index, at)
        for value in (x, index, *([given] if given is not None else ())):
            freeze_axes(watch, value, [at] if value.dims else [])
    zero = x.zero and (given.zero if given is not None else source == 0)
    return _store(watch, func, args, kwargs, [x, index, given], zero)


def _store(watch: Watch, func: Any, args: Args, kwargs: Kwargs, values: Sequence[Value | None], zero: bool) -> Any:
    """Run an operator that writes into a copy of its first operand, or into that itself."""
    inputs = [v for v in values if v is not None]
    for value in inputs:
        watch.uses(value)
    out = run(watch, func, args, kwargs)
    watch.put(out, inputs[0].dims, inputs, zero)
    if watch.operator.endswith("_"):
        written(watch, args[0])
    return out


def index_write(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Write or add slices of a source at numbers along one dimension."""
    x, index = watch.value(args[0]), watch.value(args[2])
    source = argument(args, kwargs, 3, "source", kwargs.get("value"))
    given = watch.value(source) if isinstance(source, Tensor) else None
    at = args[1] % max(len(x.dims), 1)
    freeze_axes(watch, x, [at] if x.dims else [])
    if given is not None and len(given.dims) == len(x.dims) > 0:
        freeze_axes(watch, given, [at])
        _inside(watch, x, given, at)
    elif given is not None:
        freeze_axes(watch, given, range(len(given.dims)))
        freeze_axes(watch, x, range(len(x.dims)) if given.dims else [])
    zero = x.zero and (given.zero if given is not None else source == 0)
    return _store(watch, func, args, kwargs, [x, index, given], zero)


def masked_scatter(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Entries of a source, one after the other, where a mask is set: free along a last dimension that the mask does not see."""
    x, mask, source = (watch.value(t) for t in args[:3])
    whole = args[1].dim() > 0 and x.dims and (args[1].stride()[-1] == 0 or args[1].shape[-1] == 1)
    last = bool(whole and source.dims and source.dims[-1].size == x.dims[-1].size)
    if last:
        watch.algebra.unify(x.dims[-1], source.dims[-1])
        if mask.dims[-1].size == x.dims[-1].size:
            watch.algebra.unify(x.dims[-1], mask.dims[-1])
    for value in (x, mask, source):
        freeze_axes(watch, value, range(len(value.dims) - last))
    return _store(watch, func, args, kwargs, [x, mask, source], x.zero and source.zero)


def by_number(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Counting, searching and drawing: what goes in is told apart by number, and what comes out is."""
    out = run(watch, func, args, kwargs)
    inputs = [watch.value(t) for t in tensors((args, kwargs))]
    for value in inputs:
        watch.uses(value)
        for dim in value.dims:
            if not isinstance(norm(dim), Fix):
                watch.algebra.freeze(dim, f"{BY_NUMBER} in {watch.describe()}")
    for tensor in tensors(out):
        watch.put(tensor, [Fix(n, BY_NUMBER) for n in tensor.shape], inputs)
    return out


def whole_matrix(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Inverses, exponentials, factors of matrices: every entry depends on all others."""
    out = run(watch, func, args, kwargs)
    name = watch.operator.removeprefix("_").removeprefix("linalg_").removesuffix("_ex")
    inputs = [watch.value(t) for t in tensors((args, kwargs))]
    for value in inputs:
        watch.uses(value)
        for dim in value.dims:
            if not isinstance(norm(dim), Fix):
                watch.algebra.freeze(dim, f"rows and columns of a matrix whose {name} is taken in {watch.describe()}")
    for tensor in tensors(out):
        watch.put(tensor, [Fix(n, f"rows and columns of the {name} of a matrix") for n in tensor.shape], inputs)
    return out


def searched(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Where each value would stand in a sorted row of boundaries: the values keep their dimensions."""
    out = run(watch, func, args, kwargs)
    first = watch.operator == "bucketize"
    given, row = (args[0], args[1]) if first else (args[1], args[0])
    boundaries = watch.value(row)
    if not isinstance(given, Tensor) or len(boundaries.dims) > 1:
        return by_number(watch, func, args, kwargs)
    freeze_axes(watch, boundaries, range(len(boundaries.dims)))
    x = watch.value(given)
    watch.uses(x)
    watch.put(out, x.dims, (x, boundaries))
    return out


def packed(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Sequences of several lengths, packed into one row of steps or padded again: what a step holds stays."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    old, new = (2, 1) if watch.operator.startswith("_pack") else (1, 2)
    freeze_axes(watch, x, range(old))
    data, counts = out
    watch.put(data, [*(Fix(n, SPATIAL) for n in data.shape[:new]), *x.dims[old:]], (x,), x.zero)
    watch.put(counts, [Fix(n, BY_NUMBER) for n in counts.shape])
    return out


def triangle(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """Entries above or below a diagonal are 0: the last two dimensions are in an order."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    freeze_axes(watch, x, range(max(len(x.dims) - 2, 0), len(x.dims)))
    rearranged(watch, x, out, x.dims, range(len(x.dims)))
    return out


def diagonal(watch: Watch, func: Any, args: Args, kwargs: Kwargs) -> Any:
    """The entries whose numbers along two dimensions are equal (or differ by an offset)."""
    out = run(watch, func, args, kwargs)
    x = watch.value(args[0])
    rank = len(x.dims)
    pair = {argument(args, kwargs, 2, "dim1", 0) % rank, argument(args, kwargs, 3, "dim2", 1) % rank}
    freeze_axes(watch, x, pair)
    order: list[int | None] = [i for i in range(rank) if i not in pair]
    dims: list[Term] = [x.dims[i] for i in range(rank) if i not in pair]
    rearranged(watch, x, out, [*dims, Fix(out.shape[-1], SPATIAL)], [*order, None])
    return out


RULES: dict[str, Handler] = {
    "index_select": index_select,
    "gather": gather,
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), scatter),
    **dict.fromkeys(("index_add", "index_copy", "index_fill", "index_reduce"), index_write),
    "masked_scatter": masked_scatter,
    **dict.fromkeys(
        ("nonzero", "masked_select", "bincount", "histc", "unique", "_unique", "_unique2", "unique_dim", "unique_consecutive",
         "multinomial", "take", "put", "isin", "nonzero_static", "segment_reduce"),
        by_number,
    ),
    **dict.fromkeys(("tril", "triu"), triangle),
    "diagonal": diagonal,
    **dict.fromkeys(
        ("linalg_matrix_exp", "linalg_inv_ex", "_linalg_svd", "linalg_qr", "_linalg_eigh", "linalg_eig", "linalg_cholesky_ex",
         "_linalg_det", "_linalg_slogdet", "linalg_householder_product", "_linalg_solve_ex", "linalg_lu_factor_ex",
         "linalg_lstsq", "linalg_pinv", "cholesky_inverse", "linalg_solve_triangular", "cholesky_solve", "geqrf", "ormqr"),
        whole_matrix,
    ),
    **dict.fromkeys(("searchsorted", "bucketize"), searched),
    **dict.fromkeys(("_pack_padded_sequence", "_pad_packed_sequence"), packed),
}  # fmt: skip
