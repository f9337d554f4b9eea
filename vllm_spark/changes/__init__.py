"""What a change of stack files would do: the report that `vllm-spark plan --base REF` makes.

Public face: `report.Report`, with `report.read_report` for its JSON, and `markdown.markdown`. Both
take a report from anyone: its strings are data.
"""
