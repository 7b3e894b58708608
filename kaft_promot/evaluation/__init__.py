"""Measures what models do, from sample rows alone.

The way through this room: `suites` (what to ask) -> `runner` (asks, appends `rows`) -> `grounding`
(scores and figures, after `metrics` and `measurements`) -> `statistics` (intervals, paired tests)
-> `table`, `results` and `report` (what people and programs read). Beside `grounding` stands
`retention` (what a model can still do after tuning), with `page_retention` for the report.

    run_suite("grounding", predictor, "records.jsonl", arm="kaft", rows_path="run/rows.jsonl")
    results = write_report("run", "run/report.html")
    write_results(results, "run")
    print(table.render(results.estimates))
"""
