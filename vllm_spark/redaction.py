"""Secrets are taken out of whatever is shown, because logs are pasted into public issues.

vLLM itself prints the API key among its non-default arguments (seen in 0.10.1.1), and a person
who mistypes a flag gets its value back in argparse's message.
"""

from __future__ import annotations

import re

_MASK = "***"
_NAME = r"(?:api-k|key|token(?!iz|s)|secret|passw)"
_PART = r"[\w.-]{0,60}"
"""Of the name of a flag or key. Without a limit, a long line of `-a-a` would take minutes."""
_VALUE = r"""(?:\[[^\]]*\]|"[^"]*"|'[^']*'|[^\s,;)}\]'"]+)"""
_SECRETS = (
    # tokens that say themselves what they are
    (
        re.compile(r"\b(sk-|nvapi-|gh[pousr]_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{6,}"),
        rf"\1{_MASK}",
    ),
    (re.compile(r"(?<![\w-])(eyJ)[\w-]{8,}\.[\w-]{4,}\.[\w-]+"), rf"\1{_MASK}"),  # a JSON web token
    # user and password of an address, as a proxy's
    (re.compile(r"(://)[^/\s@'\"]+@"), rf"\1{_MASK}@"),
    # hf_transfer and hf_overrides are names, not tokens
    (re.compile(r"\b(hf_)(?:\w{16,}|(?=[A-Za-z]*[A-Z\d])\w{6,})\b"), rf"\1{_MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{3,}"), rf"\1 {_MASK}"),
    # --api-key X Y, --hf-token=X: everything up to the next flag
    (
        re.compile(rf"(?i)((?<!-)--{_PART}{_NAME}{_PART})(?:[:=]\s*|\s+)(?!-|\d+\b)\S+(?:\s+(?!-)[^\s\[]\S*)*"),
        rf"\1 {_MASK}",
    ),
    # argv as a list: '--api-key', 'X'
    (
        re.compile(rf"(?i)(['\"]--{_PART}{_NAME}{_PART}['\"],\s*)['\"][^'\"]*['\"]"),
        rf"\1'{_MASK}'",
    ),
    # api_key='X', 'api_key': ['X'], VLLM_API_KEY=X, HF_TOKEN: X, X-Api-Key: X
    (
        re.compile(rf"(?i)((?:api[_-]?key|secret{_PART}|passw(?:or)?d|passphrase|authorization"
                   r"|(?:hf|hub|access|auth|user|security|session|refresh)[_-]?token)"
                   rf"['\"]?\s*[=:]\s*)(?!None\b){_VALUE}"),
        rf"\1{_MASK}",
    ),
)  # fmt: skip


def redacted(text: str) -> str:
    """The text with tokens, API keys and passwords replaced by `***`."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text
