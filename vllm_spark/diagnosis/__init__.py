"""Why did a vLLM not start, or die: its log, read line by line against a catalogue of failures.

Public face: `verdict.diagnose` for a whole log, `verdict.LogDiagnosis` for one that is being
written. `failures` holds the catalogue, rules as data.
"""
