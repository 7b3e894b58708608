import html
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from kaft_promot.evaluation import grounding, measurements, page, plots, report, samples, words
from kaft_promot.evaluation.formatting import percent
from kaft_promot.evaluation.rows import RowWriter, read_rows
from kaft_promot.evaluation.runner import run_suite
from kaft_promot.evaluation.statistics import Difference, Estimate

ATTACK = "<script>alert('x')</script>\"'&<b>"


@pytest.fixture
def run_dir(records, model, tmp_path):
    arms = {
        "kaft": {},
        "base": {"follow": 0.4, "distracted": 0.9, "suffix": False},
        "relevant_only": {"distracted": 1.0},
    }
    for arm, habits in arms.items():
        run_suite(
            "grounding",
            model(records, **habits),
            records,
            arm=arm,
            rows_path=tmp_path / "rows" / f"{arm}.jsonl",
            checkpoint=f"weights of {arm}",
            note={"seed": 17, "schedule": {"steps": 250}},
            progress=False,
        )
    return tmp_path


class Text(html.parser.HTMLParser):
    """Collects the text and the tags of a page, and that every tag is closed."""

    VOID = {"meta", "line", "circle", "br"}

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


def test_page_shows_every_figure_and_how_it_was_run(run_dir):
    results = report.write_report(run_dir, run_dir / "report.html")
    text = Text((run_dir / "report.html").read_text(encoding="utf-8")).words
    for of_arm in results.estimates.values():
        for measurement in measurements.MAIN + measurements.DETAILS:
            assert measurement.title in text and measurement.definition.split(":")[0] in text
            assert percent(of_arm[measurement.name].value) in text
    for said in ("17", "schedule steps", "250", "weights of kaft", "kaft-promot", "McNemar"):
        assert said in text
    for kind in ("Relevant", "Counterfactual", "Irrelevant", "Empty"):
        assert kind in text
    assert "(irrelevant context)" in text and "p < 0.001" in text
    assert "unlike examples" not in text
    assert "Paired differences to base" in text and "Paired differences to kaft" in text
    assert "Paired differences to relevant_only" not in text


def test_page_stands_alone(run_dir):
    report.write_report(run_dir, run_dir / "report.html")
    content = (run_dir / "report.html").read_text(encoding="utf-8")
    parsed = Text(content)
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert not [value for name, value in parsed.attributes if name == "src"]
    links = {value for name, value in parsed.attributes if name == "href"}
    anchors = {f"#{value}" for name, value in parsed.attributes if name == "id"}
    assert links and links <= anchors  # also: arms of the same name would clash
    assert not re.search(r"https?:|@import|url\(", content)
    assert "prefers-color-scheme: dark" in content and 'name="viewport"' in content


def test_drawings_have_alternative_text(run_dir):
    report.write_report(run_dir, run_dir / "report.html")
    content = (run_dir / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', content)
    assert len(drawings) == content.count("<svg ") > 8 * 3
    assert any(re.match(r"kaft: 100.0 percent \(95 % interval .* n = 20\)", d) for d in drawings)
    assert any(re.match(r"kaft against base: \+\d+.\d points", d) for d in drawings)


def test_report_is_rebuilt_from_rows_alone(run_dir, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(run_dir / "rows", elsewhere / "rows")
    first = report.write_report(run_dir, run_dir / "report.html")
    report.write_results(first, run_dir)
    second = report.write_report(read_rows(elsewhere / "rows"), elsewhere / "report.html")
    report.write_results(second, elsewhere)
    for name in ("report.html", "results.json", "details.json"):
        assert (run_dir / name).read_bytes() == (elsewhere / name).read_bytes()


def test_results_files(run_dir):
    results = report.build(run_dir)
    of_promot = {"base": {"target": {"value": 1.0}}}
    report.write_results(results, run_dir, details={"more": 1}, promot=of_promot)
    written = json.loads((run_dir / "results.json").read_text())
    assert list(written) == ["arms", "promot"]
    details = json.loads((run_dir / "details.json").read_text())
    assert list(details) == ["arms", "differences", "more"]
    assert "memorization_ratio" in details["arms"]["kaft"]
    difference = details["differences"]["base"]["kaft"]["robustness_agree"]
    assert set(difference) == {"value", "low", "high", "n", "p_value", "wins", "losses"}
    assert set(details["differences"]) == {"base", "relevant_only", "kaft"}
    assert set(details["differences"]["kaft"]) == {"base", "relevant_only"}


def test_what_comes_from_data_is_escaped(run_dir):
    rows = read_rows(run_dir)
    for row in rows.samples:
        for name in ("question", "context", "prediction", "target", "parametric_answer"):
            row[name] = f"{row[name]} {ATTACK}"
        row["gold_answers"], row["contextual_answers"] = [ATTACK], [ATTACK, "b"]
        row["irrelevant_kind"] = row["irrelevant_kind"] and ATTACK
        row["arm"] = f"{row['arm']} {ATTACK}"
    rows.notes = {f"kaft {ATTACK}": {ATTACK: ATTACK}}
    report.write_report(rows, run_dir / "report.html", title=ATTACK)
    content = (run_dir / "report.html").read_text(encoding="utf-8")
    parsed = Text(content)
    assert "script" not in parsed.tags and "<script" not in content
    assert parsed.words.count("alert('x')") > 50


def test_a_lone_surrogate_does_not_stop_the_page(run_dir):
    rows = read_rows(run_dir)
    for row in rows.samples:
        row["prediction"] = "\ud800"
    report.write_report(rows, run_dir / "report.html")
    assert (run_dir / "report.html").read_text(encoding="utf-8")


def test_further_sections_take_their_place(run_dir):
    section = page.Section("curves", "Scores over steps", "<p>flat</p>")
    report.write_report(run_dir, run_dir / "report.html", sections=[section])
    content = (run_dir / "report.html").read_text(encoding="utf-8")
    assert '<a href="#curves">Scores over steps</a>' in content
    assert content.index('<section id="curves">') < content.index('<section id="examples">')


def test_unlike_examples_are_said(run_dir):
    rows = read_rows(run_dir)
    gone = next(row for row in rows.samples if row["arm"] == "kaft")
    rows.samples.remove(gone)
    report.write_report(rows, run_dir / "report.html")
    text = Text((run_dir / "report.html").read_text(encoding="utf-8")).words
    assert "unlike examples (base 80, relevant_only 80, kaft 79; 79 in common)" in text
    for row in rows.samples:  # as many, but others
        if row["arm"] == "kaft":
            row["example_id"] += "'"
    rows.samples.append({**gone, "example_id": "one more"})
    said = report.build(rows).warnings
    assert len(said) == 1 and "(base 80, relevant_only 80, kaft 80; 0 in common)" in said[0]


@pytest.mark.parametrize("arms", [[], ["kaft"], ["mine"], ["base", "mine"]])
def test_any_set_of_arms_makes_a_page(records, model, tmp_path, arms):
    with RowWriter(tmp_path / "rows.jsonl"):
        pass
    for arm in arms:
        run_suite("grounding", model(records), records, arm=arm, rows_path=tmp_path / "rows.jsonl")
    results = report.write_report(tmp_path, tmp_path / "report.html")
    text = Text((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert list(results.estimates) == arms
    assert ("No arm was evaluated" in text) == (not arms)
    assert ("Paired differences to base" in text) == (len(arms) == 2)


def test_old_page_stays_when_the_new_one_cannot_be_written(run_dir):
    (run_dir / "report.html").mkdir()
    with pytest.raises(Exception, match="report.html: cannot write"):
        report.write_report(run_dir, run_dir / "report.html")
    assert not list(run_dir.glob("*.partial"))


def figure(value, kind=Estimate, low=None, high=None, **fields):
    low, high = value - 0.1 if low is None else low, value + 0.1 if high is None else high
    return kind(value=value, low=low, high=high, n=50, **fields)


def test_sentences_follow_the_figures():
    def arm(value):
        return {m.name: figure(value) for m in measurements.MAIN}

    estimates = {"base": arm(0.4), "kaft": arm(0.9)}
    change = {name: figure(0.5, Difference, p_value=0.01) for name in grounding.MAIN_NAMES}
    change["robustness_agree"] = figure(-0.3, Difference, p_value=0.05)
    change["reading_em"] = figure(0.02, Difference, p_value=0.6)
    change["retention_em"] = figure(0.5, Difference, p_value=0.06)
    ((name, sentences),) = words.findings(estimates, {"kaft": change})
    text = " ".join(sentences)
    assert name == "kaft"
    assert "Following the context against its own memory rises from 40.0 % to 90.0 %" in text
    assert "Keeping its own answer before an irrelevant context falls" in text
    assert "(−30.0 points, −40.0 to −20.0)" in text
    assert "Reading the answer from a relevant context: no measurable change (+2.0 points" in text
    assert "closed book: no measurable change (+50.0 points, +40.0 to +60.0, p = 0.060)" in text
    assert "takes a wrong answer out of 10.0 % of irrelevant contexts" in text
    assert words.headline(estimates) == (
        "kaft follows its context in 90.0 % of conflicts with its memory (base: 40.0 %) and keeps "
        "its own answer in 90.0 % of irrelevant contexts (base: 40.0 %)"
    )
    best = {"base": arm(0.95), "good": arm(0.8), "bad": arm(0.3)}
    assert words.focus_arm(best) == "good"


@pytest.mark.parametrize(
    ("value", "p_value", "better", "tone"),
    [
        (0.5, 0.05, "higher", "up"),
        (0.5, 0.05, "lower", "down"),
        (-0.5, 0.05, "lower", "up"),
        (0.5, 0.06, "higher", "same"),
        (0.05, 0.01, "higher", "same"),
    ],
)
def test_a_colour_needs_the_interval_and_the_test(value, p_value, better, tone):
    name = {"higher": "reading_em", "lower": "p_o"}[better]
    change = {"kaft": {name: figure(value, Difference, p_value=p_value)}}
    table = page.differences_table("base", change, [name])
    assert f'<td><span class="{tone}">' in table


def test_strip_stays_inside_and_marks_the_base():
    drawing = plots.strip(figure(0.9, low=0.8, high=1.0), "kaft", "focus", mark=0.4)
    assert 'x1="80.00%" x2="100.00%"' in drawing and 'cx="90.00%"' in drawing
    assert '<line class="mark" x1="40.00%"' in drawing
    zero = plots.strip(figure(0.0, Difference, low=-1.0, high=0.5), "a", "same")
    assert 'x1="0.00%" x2="75.00%"' in zero and 'cx="50.00%"' in zero
    nothing = plots.strip(Estimate(value=None, low=None, high=None, n=0), "a", "other")
    assert "circle" not in nothing and "not measured (n = 0)" in nothing


def test_samples_do_not_depend_on_outputs_or_order(run_dir):
    rows = read_rows(run_dir).samples
    chosen = samples.choose(rows)
    assert list(chosen) == ["relevant", "counterfactual", "irrelevant", "empty"]
    assert all(len(of_kind) == 3 for of_kind in chosen.values())
    assert all(grounding.knew(s.row) for s in chosen["counterfactual"])
    blank = [{**row, "answer": "", "prediction": ""} for row in rows[::-1]]
    again = samples.choose(blank)
    for kind, of_kind in chosen.items():
        assert [s.row["example_id"] for s in of_kind] == [s.row["example_id"] for s in again[kind]]
        for sample in of_kind:
            assert list(sample.rows) == ["base", "relevant_only", "kaft"]
            assert sample.right["kaft"]
            assert not any(samples.right({**row, "answer": "x"}) for row in sample.rows.values())


def test_long_contexts_are_cut_around_the_answer():
    context = "before " * 200 + "then Paris came, " + "after " * 200
    cut = page._excerpt(context, ["Paris"])
    assert "then Paris came" in cut and len(cut) < 450
    assert cut.startswith("… before ") and cut.endswith(" after …")
    assert page._excerpt(context, []).startswith("before ")
    assert page._excerpt(context[-800:], ["x"]).endswith(" …")
    assert page._excerpt("x" * 5000, ["y"])
    assert page._excerpt("Paris is short.", ["Paris"]) == "Paris is short."
    assert page._marked("Paris & Parisian", ["paris"]) == "<mark>Paris</mark> &amp; Parisian"


@pytest.mark.slow
def test_page_fits_a_browsers_window(run_dir, tmp_path):
    """Laid out by a real browser: dots stand where the figures say, nothing sticks out sideways."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium or google-chrome on this machine")
    report.write_report(run_dir, run_dir / "report.html")
    content = (run_dir / "report.html").read_text(encoding="utf-8")
    script = """<script>
      const strip = document.querySelector('.strip.focus').getBoundingClientRect();
      const dot = document.querySelector('.strip.focus circle').getBoundingClientRect();
      document.title = JSON.stringify({
        wide: document.documentElement.scrollWidth, window: window.innerWidth,
        dot: (dot.left + dot.width / 2 - strip.left) / strip.width,
        light: getComputedStyle(document.body).backgroundColor});
    </script></body>"""
    probed = tmp_path / "probed.html"
    probed.write_text(content.replace("</body>", script), encoding="utf-8")
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
        seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", run.stdout)[1]))
        assert seen["wide"] <= seen["window"]
        assert seen["dot"] == pytest.approx(1.0, abs=0.02)  # kaft's controllability is 100 %
        assert seen["light"] == "rgb(246, 247, 249)"
