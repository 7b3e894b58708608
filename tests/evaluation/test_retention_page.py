"""The page's sections on retention, from rows of arms whose behaviour is known."""

import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from html import unescape
from importlib import resources

import pytest

from kaft_promot.evaluation import (
    curves,
    page,
    page_retention,
    retention_seeds,
    retention_steps,
)
from kaft_promot.evaluation.formatting import percent
from kaft_promot.evaluation.output_share import one_of, register_format
from kaft_promot.evaluation.page_retention_examples import choose
from kaft_promot.evaluation.retention import NAMES, OTHER, SHARE, measure
from kaft_promot.evaluation.statistics import Estimate

TARGET = "page_claims"
register_format(TARGET, one_of("True", "False"))
ATTACK = "<script>alert('x')</script>\"'&<b>"

# arm -> (share right on the target, share of queries answered as the base does at the last step)
ARMS = {"base": (0.5, 1.0), "finetune": (0.66, 0.05), "promot": (0.67, 0.93), "joint": (0.64, 0.3)}
TASKS = {"first": "cat", "last": "hen", "label": "A", "place": "Oslo", "is_it": "True"}


def draw(*key):
    return int(hashlib.sha256(repr(key).encode()).hexdigest()[:8], 16) / 2**32


def row(suite, task, arm, example, answer, target, **fields):
    return {
        "suite": suite,
        "task": task,
        "arm": arm,
        "example_id": example,
        "question_id": example,
        "prompt": f"{task}: cat dog = cat ; {task}: red hen = red ; {example} =",
        "prediction": answer,
        "answer": answer,
        "target": target,
        "scores": {"exact_match": float(answer == target)},
        **fields,
    }


def made_rows(arms=ARMS, queries=30, part=1.0, **more):
    """Rows of arms that are `part` of their way from base to what `ARMS` says."""
    rows = []
    for arm, (right, kept) in arms.items():
        right, kept = 0.5 + (right - 0.5) * part, 1 + (kept - 1) * part
        for n in range(2 * queries):
            example = f"claim:{n}"
            answer = "True" if draw(arm, example, more) < right else "False"
            rows.append(row("target", TARGET, arm, example, answer, "True", **more))
        for name, target in TASKS.items():
            for n in range(queries):
                example = f"{name}:{n}"
                knows = target if draw(example) < 0.9 else "dog"
                answer = knows if draw(arm, example) < kept else "True"
                fields = {"in_context_task": name, "shots": 2, **more}
                rows.append(
                    row("in_context", f"t_{name}_2shot", arm, example, answer, target, **fields)
                )
    return rows


def made_curve_rows(steps=(75, 150, 225, 300), **more):
    trained = {arm: habits for arm, habits in ARMS.items() if arm != "base"}
    rows = made_rows({"base": ARMS["base"]}, 12, step=0, **more)
    for step in steps:
        rows += made_rows(trained, 12, step / max(steps), step=step, **more)
    return rows


def document(sections):
    style = resources.files("kaft_promot").joinpath("assets/report/report.css")
    return page.document(
        title="What else can the model still do?",
        headline="h",
        style=style.read_text(encoding="utf-8"),
        warnings=[],
        sections=sections,
    )


class Text(html.parser.HTMLParser):
    """Collects the text and the attributes of a page, and checks that every tag is closed."""

    VOID = {"meta", "line", "circle", "rect", "path", "br"}

    def __init__(self, content):
        super().__init__()
        self.text, self.tags, self.attributes, self.open = [], [], [], []
        self.feed(content)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"unexpected </{tag}>"

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def sections_of(rows, curve_rows, target):
    tables = retention_seeds.tables_of(rows, target)
    curves = retention_steps.curves(curve_rows, target)
    return page_retention.sections(rows, tables, curves, {}, target)


@pytest.fixture(scope="module")
def rows():
    return made_rows()


@pytest.fixture(scope="module")
def sections(rows):
    return sections_of(rows, made_curve_rows(), TARGET)


def test_every_figure_stands_on_the_page(rows, sections):
    assert [section.anchor for section in sections] == [
        "retention",
        "retention-curves",
        "retention-tasks",
        "retention-examples",
        "retention-definitions",
    ]
    figures, _, tasks, examples, definitions = (Text(s.html).words for s in sections)
    estimates = measure(rows, TARGET)
    for of_arm in estimates.values():
        assert all(percent(of_arm[name].value) in figures for name in NAMES)
    assert "Paired differences to base" in figures and "Paired differences to finetune" in figures
    assert re.search(
        r"promot (not below|at most \d+\.\d points below)", figures.replace("\xa0", " ")
    )
    assert "unlike numbers" not in figures
    for task in TASKS:
        assert f"{task}, 2 shots" in tasks and f"{task}, 2 shots" in examples
    assert tasks.index("place, 2 shots") < tasks.index("is_it, 2 shots")  # other formats first
    assert "mean of these" in tasks and "mean of all tasks" in tasks and "loss +" in tasks
    assert percent(estimates["finetune"][OTHER].value) in tasks
    assert percent(estimates["finetune"][SHARE].value) in tasks
    assert all(name in definitions for name in NAMES)


def test_colours_say_what_is_better(sections):
    lines = re.findall(
        r"<tr><th scope=\"row\">([^<]+)</th><td><span class=\"(\w+)\">", sections[0].html
    )
    to_base = dict(lines[:4])  # finetune minus base
    assert to_base["In-context score, other formats"] == "down"
    assert to_base["Output share"] == "down"  # a rise, which is worse


def test_a_score_that_is_not_right_or_wrong_is_shown_itself(rows, sections):
    graded = [
        one | {"main_score": "bleu", "scores": {"exact_match": 0.0, "bleu": 0.35}} for one in rows
    ]
    plain = "".join(section.html for section in sections)
    assert "Percent right" in plain and 'aria-label="right"' in plain and "Here scored" not in plain
    html = "".join(section.html for section in sections_of(graded, [], TARGET))
    assert not re.search(r'\bright\b(?! to)|"wrong"|[✓✗]', html)
    assert '<span class="verdict">bleu 35.0 %</span>' in html
    assert "Score (bleu, mean over examples) in percent with 95 % interval" in html
    assert "The output equals the target. Here scored by bleu, mean over examples." in html
    # in-context tasks of exact match beside a target of another score
    mixed = [
        old if old["suite"] == "in_context" else new for old, new in zip(rows, graded, strict=True)
    ]
    html = "".join(section.html for section in sections_of(mixed, [], TARGET))
    assert "Percent right" in html and 'aria-label="right"' in html and "bleu 35.0 %" in html


def test_page_is_well_formed_and_stands_alone(sections):
    parsed = Text(document(sections))
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    anchors = [value for name, value in parsed.attributes if name == "id"]
    assert len(anchors) == len(set(anchors))


def test_curves_carry_their_figures_as_text(sections):
    drawings = re.findall(r'<svg role="img" aria-label="([^"]+)"', sections[1].html)
    assert len(drawings) == 3
    spoken = unescape(drawings[1])
    assert spoken.startswith("In-context score, other formats over training steps. base: ")
    assert re.search(r"promot: step 75 \d+\.\d percent \(95 % interval .*?; step 150 ", spoken)
    assert "stands on 24 examples of the target task and 48 of in-context" in sections[1].html


def test_a_plot_puts_points_where_the_figures_say():
    def point(value):
        return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=10)

    nothing = Estimate(value=None, low=None, high=None, n=0)
    series = {"a": {200: point(0.3), 50: point(0.8)}, "b": {200: point(0.5), 50: nothing}, "c": {}}
    styles = curves.styles_of(["a", "b", "c"], "b")
    assert styles == {"b": 0, "a": 1, "c": 2}
    drawing = curves.plot(series, styles, "T", base=point(0.9))
    assert '<line x1="25.00%" x2="100.00%" y1="20.00%" y2="70.00%"/>' in drawing
    assert 'class="whisker" x1="25.00%" x2="25.00%" y1="30.00%" y2="10.00%"' in drawing
    assert '<svg class="dot" x="100.00%" y="50.00%"' in drawing
    assert drawing.count('class="dot"') == 3
    assert '<line class="mark" x1="0" x2="100%" y1="10.00%" y2="10.00%"/>' in drawing
    assert "a: step 50 80.0 percent" in drawing and "c:" not in drawing
    assert [int(x) for x in re.findall(r'left:[\d.]+%">(\d+)<', drawing)] == [0, 100, 200]
    assert "base" in curves.legend(styles, True) and "base" not in curves.legend(styles, False)
    assert curves.styles_of(["a"], None) == {"a": 1}
    assert "circle" not in curves.plot({}, {}, "nothing")


def test_what_comes_from_data_is_escaped():
    def hostile(rows):
        for one in rows:
            for name in ("prompt", "prediction", "target", "in_context_task"):
                if name in one:
                    one[name] = f"{one[name]} {ATTACK}"
            one["arm"] = f"{one['arm']} {ATTACK}"
        return rows

    found = sections_of(hostile(made_rows()), hostile(made_curve_rows()), TARGET)
    parsed = Text(document(found))
    assert "script" not in parsed.tags and "b" in parsed.tags
    assert parsed.words.count("alert('x')") > 50


def test_several_seeds_are_shown_apart(rows):
    more = [one | {"seed": 3} for one in rows] + made_rows(seed=5)
    curve_rows = made_curve_rows(seed=5)
    found = sections_of(more, curve_rows, TARGET)
    plain = sections_of(rows, curve_rows, TARGET)
    assert found[0] == plain[0]  # the figures are those of the first seed
    (seeds,) = [section for section in found if section.anchor == "retention-seeds"]
    text = Text(seeds.html).words.replace("\xa0", " ")
    assert seeds.title == "What it can still do, over 2 seeds" and "Seeds 3, 5" in text
    assert "Differences to base over seeds" in text and "Differences to finetune" in text
    assert "finetune's output share is above 80 %: in 2 of 2 seeds." in text


def test_any_set_of_arms_makes_sections(rows):
    assert sections_of([], [], TARGET) == []
    alone = [one for one in rows if one["arm"] == "joint" and one["suite"] == "target"]
    found = sections_of(alone, [], TARGET)
    assert [section.anchor for section in found] == [
        "retention",
        "retention-examples",
        "retention-definitions",
    ]
    Text(document(found))
    without_base = [one for one in rows if one["arm"] != "base"]
    found = sections_of(without_base[1:], [], TARGET)
    text = Text(document(found)).words
    assert "loss +" not in text and "unlike numbers of examples (Target task: finetune 59" in text


def test_samples_are_the_same_queries_for_all_arms_and_do_not_depend_on_outputs(rows):
    chosen = choose(rows)
    assert [next(iter(of_arm.values()))["task"] for of_arm in chosen] == [
        "t_first_2shot",
        "t_is_it_2shot",
        "t_label_2shot",
        "t_last_2shot",
        "t_place_2shot",
        TARGET,
    ]
    assert all(set(of_arm) == set(ARMS) for of_arm in chosen)
    blank = [one | {"prediction": "", "answer": "", "scores": {}} for one in rows[::-1]]
    ids = [[of_arm["base"]["example_id"] for of_arm in found] for found in (chosen, choose(blank))]
    assert ids[0] == ids[1]


@pytest.mark.slow
def test_plots_fit_a_browsers_window(sections, tmp_path):
    """Laid out by a real browser: marks stand where the figures say, nothing sticks out."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium or google-chrome on this machine")
    script = """<script>
      const plot = document.querySelector('.curve .plot > svg').getBoundingClientRect();
      const dots = [...document.querySelectorAll('.curve .series-0 .dot > *')].slice(0, 4);
      const at = dots.map(dot => dot.getBoundingClientRect());
      document.title = JSON.stringify({
        wide: document.documentElement.scrollWidth, window: window.innerWidth,
        across: at.map(box => (box.left + box.width / 2 - plot.left) / plot.width)});
    </script></body>"""
    probed = tmp_path / "probed.html"
    probed.write_text(document(sections).replace("</body>", script), encoding="utf-8")
    for width in (500, 1280):
        run = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--window-size={width},900",
                "--dump-dom",
                probed.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        seen = json.loads(unescape(re.search(r"<title>(.*?)</title>", run.stdout)[1]))
        assert seen["wide"] <= seen["window"]
        assert seen["across"] == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.03)
