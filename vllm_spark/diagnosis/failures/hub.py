"""Failures of fetching: the hub, its access rights, the network to it."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule

_REPO = r"https?://(?:huggingface\.co|hf\.co|[\w.-]+)/(?:api/models/)?(?P<repo>[\w.-]+/[\w.-]+?)"

RULES = (
    Rule(
        id="hub_gated",
        patterns=(rf"Cannot access gated repo for url {_REPO}/(?:resolve|tree|raw)?",
                  r"You are trying to access a gated repo",
                  r"Access to model (?P<repo>\S+) is restricted"),
        detail=r"Make sure to have access to it at https://huggingface\.co/(?P<repo>\S+?)\.?$",
        cause="{repo} is gated, and this token (or none) has no access to it",
        fix="accept the licence at https://huggingface.co/{repo} and set a Hugging Face token of"
             " that account (huggingFaceToken, HF_TOKEN)",
        source="huggingface_hub GatedRepoError; transformers utils/hub.py",
        compute=lambda values: {"repo": values.get("repo") or values["model"]},
    ),
    Rule(
        id="hub_token_invalid",
        patterns=(r"Invalid user token|Invalid credentials in Authorization header"
                  r"|User Access Token .*? is expired",),
        cause="the hub refuses the Hugging Face token",
        fix="set a valid token (huggingFaceToken, HF_TOKEN): https://huggingface.co/settings/tokens",
        source="huggingface_hub hf_api.py",
    ),
    Rule(
        id="hub_token_forbidden",
        patterns=(r"403 Forbidden: (?P<why>[^.]+)",),
        cause="the hub forbids it to this token: {why}",
        fix="give the token the right that is named (https://huggingface.co/settings/tokens), or"
             " set another (huggingFaceToken, HF_TOKEN)",
        source="huggingface_hub utils/_http.py",
    ),
    Rule(
        id="hub_repo_missing",
        patterns=(rf"Repository Not Found for url: {_REPO}(?:/(?:resolve|tree|raw)\b.*|[.\s]*)$",
                  r"(?:OSError: |^)(?P<repo>[\w.-]+/[\w.-]+) is not a local folder and is not a"
                  r" valid model identifier"),
        cause="the hub knows no model {repo}, or the token may not see it",
        fix="check the spelling of {repo}; if it is private, set a Hugging Face token that may"
             " read it",
        source="huggingface_hub RepositoryNotFoundError",
    ),
    Rule(
        id="hub_revision_missing",
        patterns=(r"(?:^|\s)(?P<revision>\S{1,100}) is not a valid git identifier",
                  rf"Revision Not Found for url: {_REPO}/resolve/(?P<revision>[^/\s]+)"),
        cause="the model's repository has no revision {revision}",
        fix="correct or remove revision: the model's page lists its branches and commits",
        source="huggingface_hub RevisionNotFoundError",
    ),
    Rule(
        id="hub_offline",
        patterns=(r"outgoing traffic has been disabled", r"OfflineModeIsEnabled",
                  r"offline mode is enabled"),
        cause="{model} is not (completely) in the cache, and offline mode forbids to fetch it",
        fix="remove HF_HUB_OFFLINE for one start, or fetch the model into the mounted cache first",
        source="vLLM 0.26 log; huggingface_hub LocalEntryNotFoundError",
    ),
    Rule(
        id="hub_tls",
        patterns=(r"CERTIFICATE_VERIFY_FAILED",),
        cause="the hub's TLS certificate is not trusted (a proxy that opens TLS?)",
        fix="mount your CA bundle and set REQUESTS_CA_BUNDLE and SSL_CERT_FILE to it",
        source="Python ssl",
    ),
    Rule(
        id="hub_rate_limited",
        patterns=(r"429 (?:Client Error: )?Too Many Requests.*",),
        cause="the hub refuses for now: too many requests",
        fix="wait some minutes and start again; a Hugging Face token raises the limit",
        source="huggingface_hub HfHubHTTPError",
    ),
    Rule(
        id="hub_fails",
        patterns=(r"(?P<why>Server error '5\d\d [^']*') for url 'https?://(?:huggingface\.co|hf\.co|"
                  r"[\w.-]+\.hf\.co)",
                  r"(?P<why>5\d\d Server Error: .+?) for url: https?://(?:huggingface\.co|hf\.co|"
                  r"[\w.-]+\.hf\.co)"),
        cause="the hub itself fails: {why}",
        fix="wait some minutes (https://status.huggingface.co) and start again",
        source="huggingface_hub HfHubHTTPError",
    ),
    Rule(
        id="hub_unreachable",
        patterns=(r"An error happened while trying to locate the files? on the Hub",
                  r"We couldn't connect to 'https?://",
                  r"(?:httpx|httpcore|requests|urllib3)[\w.]*\.(?:Connect\w*|\w*Timeout|ProxyError"
                  r"|ConnectionError|NewConnectionError|MaxRetryError|NameResolutionError"
                  r"|ReadError|RemoteProtocolError|ProtocolError|ChunkedEncodingError)\b",
                  r"(?:HTTPS?ConnectionPool|MaxRetryError).*huggingface\.co",
                  r"Data processing error: (?!.*I/?O [Ee]rror).*(?:CAS|reqwest|request error)"),
        cause="the hub cannot be reached, and {model} is not in the cache",
        fix="check the network and DNS of the container (`docker run --rm IMAGE getent hosts"
             " huggingface.co`), or fetch the model into the mounted cache first",
        source="vLLM 0.26 log; huggingface_hub, httpx and requests",
    ),
    Rule(
        id="harmony_vocabulary_missing",
        patterns=(r"HarmonyError: error downloading or loading vocab file",),
        cause="gpt-oss needs o200k_base.tiktoken, which is not part of the model, and it cannot be"
              " fetched",
        fix="let the container reach openaipublic.blob.core.windows.net, or mount a directory with"
             " the file and name it in TIKTOKEN_ENCODINGS_BASE",
        source="vllm#22525; openai_harmony",
        versions="0.10 to 0.33",
    ),
    Rule(
        id="hub_file_missing",
        patterns=(rf"Entry Not Found for url: {_REPO}/resolve/[^/]+/(?P<file>\S+?)\.?$",
                  r"(?:^|\s)(?P<repo>\S{1,200}) does not appear to have a file named"
                  r" (?P<file>\S+?)\.?(?:\s|$)"),
        cause="{repo} has no file {file}",
        fix="check that the repository is a model for vLLM (with {file}) and that it is complete",
        source="huggingface_hub EntryNotFoundError; transformers utils/hub.py",
        rank=Rank.GENERAL,
    ),
)  # fmt: skip
