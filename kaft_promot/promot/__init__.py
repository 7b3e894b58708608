"""ProMoT against other ways of tuning: one experiment from a base model to a report.

`arms.py` says what each way is, `settings.py` what a comparison is made of, `experiment.py` runs
it, `report.py` shows it. It stands above the other rooms, beside the quickstart, and calls their
public functions only.
"""
