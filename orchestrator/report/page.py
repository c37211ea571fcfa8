"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from coppice.orchestrator.plain_text import plain
from coppice.orchestrator.report.charts import curves, scatter
from coppice.orchestrator.report.data import ReportData, TrialData, options
from coppice.orchestrator.report.numbers import duration, metric_difference, metric_name, metric_value, plural, short, whole
from coppice.orchestrator.report.svg import polyline, tag, triangle
from coppice.orchestrator.report.tables import changes_table, comparison_table, final_size, option_table, trials_table
from coppice.orchestrator.report.trial_charts import size_over_time, widths


def render(data: ReportData) -> str:
    """The page, complete: style, script and drawings are inside it."""
    read = files("coppice.orchestrator.report")
    head = "".join((
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="generator" content="coppice"><link rel="icon" href="data:,">',
        tag("title", escape(f"{data.name}: Coppice report")),
        f"<style>{read.joinpath('page.css').read_text()}</style>",
    ))
    sections = (header(data), headline(data), compared(data), sizes(data), best_trial(data), learning(data), choices(data),
                everything(data), failures(data), footer(data))
    body = tag("main", *(s for s in sections if s)) + f"<script>{read.joinpath('page.js').read_text()}</script>"
    return plain(f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n')


def _section(title: str, intro: str, *content: str) -> str:
    """A section; empty when it has no content. `intro` is text, `content` is markup."""
    if not any(content):
        return ""
    return tag("section", tag("h2", escape(title)), tag("p", escape(intro), class_="quiet") if intro else "", *content)


def _card(*content: str) -> str:
    return tag("div", *content, class_="card") if any(content) else ""


def header(data: ReportData) -> str:
    """Name, time and what was searched with which versions."""
    facts = (("Started", data.created), *data.facts) if data.created else data.facts
    pairs = [tag("div", tag("dt", escape(name)), tag("dd", escape(value))) for name, value in facts]
    return tag("header", tag("h1", escape(data.name)), tag("dl", *pairs, class_="facts") if pairs else "")


def headline(data: ReportData) -> str:
    """One or two sentences with the result in plain numbers."""
    best = data.best
    if best is None:
        failed = sum(t.state == "failed" for t in data.trials)
        why = f" {plural(failed, 'trial')} failed; the reasons are below." if failed else ""
        return tag("p", f"No trial has reported {escape(metric_name(data.metric))} yet.{why}", class_="headline")
    first, now = _first_parameters(best), best.last("parameters")
    came = f", having started with {whole(first)}" if first is not None and first != now else ""
    sentences = (
        f"The best network, {_bold(best.id)}, reaches {_bold(metric_value(data.metric, best.last(data.metric)))} "
        f"{escape(metric_name(data.metric))} with {_bold(whole(now))} parameters and {_bold(short(best.last('flops')))} FLOPs "
        f"a forward. It grew {plural(best.count(True), 'time')} and shrank {plural(best.count(False), 'time')}{came}."
    )
    done = sum(t.state == "finished" for t in data.searched)
    failed = sum(t.state == "failed" for t in data.searched)
    seconds = sum(t.seconds for t in data.trials)
    counts = f"{done} of {plural(len(data.searched), 'trial')} finished" + (f", {failed} failed" if failed else "")
    compute = sum(t.last("compute") or 0.0 for t in data.trials)
    below = f"{counts}. {duration(seconds)} of training in all, {short(compute)} FLOPs."
    return tag("p", sentences, class_="headline") + tag("p", escape(below), class_="quiet")


def _bold(content: str) -> str:
    return tag("b", escape(content))


def _first_parameters(trial: TrialData) -> float | None:
    known = next((c.parameters_before for c in trial.changes if c.parameters_before is not None), None)
    return known if known is not None else next((e["parameters"] for e in trial.epochs if "parameters" in e), None)


def compared(data: ReportData) -> str:
    """The best network, the static one of its final size and the big one."""
    best = data.best
    lines = []
    for label in ("static", "big"):
        trial = data.labelled(label)
        ours, theirs = best.last(data.metric) if best else None, trial.last(data.metric) if trial else None
        if best and trial and ours is not None and theirs is not None:
            name = "the big one" if label == "big" else f"the static network of {final_size(best, trial)}"
            lines.append(f"{metric_difference(data.metric, ours - theirs)} against {name}")
    intro = f"Best grown-and-pruned network: {'; '.join(lines)}. One seed each: small differences can be chance."
    return _section("Was growing and pruning worth it?", intro, _card(comparison_table(data)))


def sizes(data: ReportData) -> str:
    """The chart of the searched metric against the number of parameters."""
    kinds = [("mark", "trial"), ("mark on-front", "on the front: no smaller trial is better"), ("mark best", "best")]
    if any(t.state != "finished" and t.last(data.metric) is not None for t in data.searched):
        kinds.append(("mark unfinished", "not finished"))
    items = [_key(tag("circle", class_=kind, cx=7, cy=7, r=5), label) for kind, label in kinds]
    items += [_key(tag("rect", class_=f"mark {label}", x=2, y=2, width=10, height=10), f"{label} network, for comparison")
              for label in ("static", "big") if data.labelled(label)]
    chart = scatter(data)
    title = f"{metric_name(data.metric).capitalize()} against size"
    return _section(title, "Each mark is one trial after its last epoch; point at it for its numbers.",
                    _card(tag("ul", *items, class_="legend"), tag("div", chart, class_="scroll")) if chart else "")


def _key(mark: str, label: str) -> str:
    return tag("li", tag("svg", mark, viewBox="0 0 14 14", aria_hidden="true"), escape(label))


def best_trial(data: ReportData) -> str:
    """How the best network came to be."""
    best = data.best
    if best is None or not best.epochs:
        return ""
    marks = _key(triangle(7, 8, True, 5, class_="grew"), "grew"), _key(triangle(7, 6, False, 5, class_="shrank"), "shrank")
    keys = tag("ul", *marks, class_="legend")
    log = _details(plural(len(best.changes), "structural change"), changes_table(best)) if best.changes else ""
    skipped = [tag("li", escape(f"epoch {epoch}: {reason}")) for epoch, reason in best.skipped]
    nothing = plural(len(skipped), "time an adaptation did nothing", "times an adaptation did nothing")
    missed = _details(nothing, tag("ul", *skipped))
    sampled = best.parameters_of.items()
    values = [tag("dt", tag("code", escape(path))) + tag("dd", escape(shown(value))) for path, value in sampled]
    chosen = tag("h3", "Sampled values") + tag("dl", *values, class_="values") if values else ""
    size = tag("div", size_over_time(best) or " ", class_="scroll")
    return _section(
        f"How {best.id} took its shape", "Parameters of the whole network, then the size of each element, after each epoch.",
        _card(keys, size, tag("h3", "Width of each layer"), widths(best)), _card(chosen), _card(log, missed if skipped else ""))


def shown(value: object) -> str:
    """A sampled value in a few words."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _details(summary: str, content: str) -> str:
    return tag("details", tag("summary", escape(summary)), content)


def learning(data: ReportData) -> str:
    """Learning curves over epochs and over compute."""
    by_epoch, by_compute = curves(data, "epoch"), curves(data, "compute")
    kinds = [("curve", "trial"), ("curve best", "best")]
    kinds += [(f"curve {label}", f"{label} network") for label in ("static", "big") if data.labelled(label)]
    keys = tag("ul", *(_key(polyline([(0, 7), (14, 7)], class_=k), label) for k, label in kinds), class_="legend")
    charts = tag("div", *(tag("div", c) for c in (by_epoch, by_compute) if c), class_="pair") if by_epoch else ""
    intro = "The same curves twice: an epoch of a grown network costs more, so compute is the fairer clock."
    return _section("Learning curves", intro, _card(keys, charts) if charts else "")


def choices(data: ReportData) -> str:
    """When, where and how: what each option of each searched choice reached."""
    tables = options(data)
    parts = [tag("div", tag("h3", tag("code", escape(path))), option_table(data, rows)) for path, rows in tables.items()]
    done = sum(t.last(data.metric) is not None and t.state == "finished" for t in data.searched)
    total = plural(done, "finished trial")
    intro = (f"Last {metric_name(data.metric)} of {total}, split by each searched choice. A sampler does not try options evenly, "
             "and trials differ in everything else: a mean is a hint, not a proof. Options with fewer than 3 trials are grey.")
    return _section("When, where and how", intro, _card(tag("div", *parts, class_="pair")) if parts else "")


def everything(data: ReportData) -> str:
    """The table of all trials."""
    return _section("All trials", "A click on a heading sorts.", _card(trials_table(data)) if data.trials else "")


def failures(data: ReportData) -> str:
    """What went wrong, in full."""
    entries = []
    for trial in data.trials:
        if trial.reason:
            lines = trial.reason.strip().splitlines()
            summary = tag("summary", tag("b", escape(trial.id)), escape(f" {trial.state}: {lines[-1]}"))
            entries.append(tag("details", summary, tag("pre", escape(trial.reason))))
    damaged = [tag("li", escape(said)) for said in (*(t.damage for t in data.trials), *data.remarks) if said]
    listed = tag("h3", "The folder") + tag("ul", *damaged) if damaged else ""
    return _section("What went wrong", "", _card(listed, *entries) if entries or damaged else "")


def footer(data: ReportData) -> str:
    """How to get at the network."""
    command = tag("code", escape(f"coppice best {data.folder}"))
    return tag("footer", f"The best network as a file: {command}. FLOPs count the multiplications and additions of matrix "
               "products and convolutions for one sample; training compute is three forwards for each sample seen. Coppice.")
