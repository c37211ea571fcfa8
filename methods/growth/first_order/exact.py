"""Growth between two layers that leaves the function as it is."""

from __future__ import annotations

from coppice.methods.graph.values import Element
from coppice.methods.measures.site import why_no_site
from coppice.methods.method import Context, Method


class Exact(Method):
    """A method that needs the layers on both sides of an element, and new units that can be silent at first."""

    def accepts(self, context: Context, element: Element) -> str | None:
        """See `Method.accepts`."""
        reason = super().accepts(context, element)
        if reason is not None:
            return reason
        if element.grow != "exact":
            return "new units would change the function"
        return why_no_site(context.network, element)
