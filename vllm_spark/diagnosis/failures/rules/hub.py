"""Failures of fetching: the hub, its access rights, Xet, the network to it."""

from __future__ import annotations

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_REPO = r"https?://(?:huggingface\.co|hf\.co|[\w.-]+)/(?:api/models/)?(?P<repo>[\w.-]+/[\w.-]+?)"
_HUB = r"https?://(?:[\w.-]*huggingface\.co|hf\.co|[\w.-]+\.hf\.co)"
_NO_XET = "HF_HUB_DISABLE_XET=1 downloads over plain HTTP"
# Other programs in the server's process that talk HTTP too.
_NOT_THE_HUB = r"opentelemetry|otlp|boto|s3\.|/multimodal/|prometheus|lmcache|mooncake"


def _repo(values: Values) -> Values:
    return {"repo": values.get("repo") or values["model"]}


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
        compute=_repo,
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
        cause="{model} is not (completely) in the cache, and offline mode forbids downloads",
        fix="remove HF_HUB_OFFLINE for one start, or fetch the model into the mounted cache first",
        source="vLLM 0.26 log; huggingface_hub LocalEntryNotFoundError",
    ),
    Rule(
        id="hub_tls",
        patterns=(r"CERTIFICATE_VERIFY_FAILED",),
        cause="the hub's TLS certificate is not trusted (a proxy that opens TLS?)",
        fix="mount your CA bundle and set REQUESTS_CA_BUNDLE and SSL_CERT_FILE to it",
        source="Python ssl",
        unless=_NOT_THE_HUB,
    ),
    Rule(
        id="hub_rate_limited",
        patterns=(r"429 (?:Client Error: )?Too Many Requests", r"kind: Status\(429\)",
                  r"(?i:HTTP status client error) \(429",
                  r"We had to rate limit (?:you|your IP)"),
        cause="the hub refuses for now: too many requests (429)",
        fix="wait some minutes and start again; a Hugging Face token (huggingFaceToken, HF_TOKEN)"
             f" raises the limit; if it comes from Xet, {_NO_XET}",
        source="huggingface_hub HfHubHTTPError; huggingface_hub#3158",
    ),
    Rule(
        id="hub_link_refused",
        patterns=(r"kind: Status\((?P<status>40[13])\)",
                  rf"(?P<status>40[13]) (?:Client Error: )?\w+ for url:"
                  rf" {_HUB.replace('huggingface', 'xethub')}",
                  r"(?P<status>403) (?:Client Error: )?Forbidden for url:"
                  r" https?://(?:cas-bridge|cdn-lfs|transfer)[\w.-]*"),
        cause="the hub's file store refuses the signed link ({status}): it has expired, or a proxy"
              " changed it",
        fix="start again (the download resumes); if it repeats, check the host's clock (`date -u`)"
             f" and the proxy, or try the other way: {_NO_XET}",
        source="xet-core#238",
    ),
    Rule(
        id="hub_partial_file",
        patterns=(r"416 (?:Client Error: )?(?:Requested )?Range Not Satisfiable",
                  r"kind: Status\(416\)"),
        cause="a partly downloaded file in the cache does not fit the file on the hub (416)",
        fix="delete the *.incomplete files below the cache's blobs directory and start again",
        source="HuggingFace-Download-Accelerator#14; huggingface_hub file_download.py",
    ),
    Rule(
        id="hub_fails",
        patterns=(rf"(?P<why>Server error '5\d\d [^']*') for url '{_HUB}",
                  rf"(?P<why>5\d\d Server Error: .+?) for url: {_HUB}",
                  r"CAS service error.*(?P<why>Status\(5\d\d\))"),
        cause="the hub itself fails: {why}",
        fix="wait some minutes (https://status.huggingface.co) and start again",
        source="huggingface_hub HfHubHTTPError",
    ),
    Rule(
        id="download_cannot_be_written",
        patterns=(r"(?:Data processing error|CAS service error).{0,300}?"
                  r"(?P<why>(?:IO|I/O) [Ee]rror: ?"
                  r"(?!.{0,300}(?:No space|quota|[Pp]ermission)).+)",),
        cause="the download cannot be written to the cache: {why}",
        fix="put the cache (HF_HOME) on a local disk in place of a network file system, and start"
             f" again; or try the other way: {_NO_XET}",
        source="xet-core#444",
    ),
    Rule(
        id="download_broke",
        patterns=(r"CAS service error.*(?P<why>IncompleteBody|UnexpectedEof|kind: (?:Body"
                  r"|Decode)\b)",
                  r"(?P<why>IncompleteRead\(\d+ bytes read.{0,40})",
                  r"(?:httpx|httpcore|requests|urllib3)[\w.]*\.(?P<why>ReadError|ProtocolError"
                  r"|RemoteProtocolError|ChunkedEncodingError|IncompleteRead)\b"),
        cause="the download from the hub was cut off in the middle ({why})",
        fix="start again: the download resumes; if it repeats, try another network, or the other"
             f" way: {_NO_XET}",
        source="vllm#18701; httpx and requests",
        unless=_NOT_THE_HUB,
    ),
    Rule(
        id="xet_unreachable",
        patterns=(r"(?:Data processing error|CAS service error)[: ]{1,4}"
                  r"(?!.{0,300}(?:IO|I/O) [Ee]rror)"
                  r"(?P<why>.{0,300}(?:Request failed after \d+ retries|reqwest|(?i:request error)"
                  r"|ConnectError|dns error|timed out).{0,80})",),
        cause="the hub's Xet storage cannot be reached, or did not answer: {why}",
        fix=f"start again; if it repeats, {_NO_XET}; check that the container reaches"
             " cas-server.xethub.hf.co and transfer.xethub.hf.co",
        source="torchforge#109; hf_xet",
    ),
    Rule(
        id="harmony_vocabulary_missing",
        patterns=(r"HarmonyError: error downloading or loading vocab file",
                  r"openaipublic\.blob\.core\.windows\.net"),
        cause="gpt-oss needs o200k_base.tiktoken, which is not part of the model, and it cannot be"
              " fetched",
        fix="let the container reach openaipublic.blob.core.windows.net, or mount a directory with"
             " the file and name it in TIKTOKEN_ENCODINGS_BASE",
        source="vllm#22525; openai_harmony",
    ),
    Rule(
        id="hub_unreachable",
        patterns=(r"An error happened while trying to locate the files? on the Hub",
                  r"We couldn't connect to 'https?://",
                  r"(?:httpx|httpcore|requests|urllib3)[\w.]*\.(?:Connect\w*|\w*Timeout|ProxyError"
                  r"|ConnectionError|NewConnectionError|MaxRetryError|NameResolutionError)\b",
                  r"(?:HTTPS?ConnectionPool|MaxRetryError).*huggingface\.co"),
        cause="the hub cannot be reached, and {model} is not in the cache",
        fix="check the network and DNS of the container (`docker run --rm IMAGE getent hosts"
             " huggingface.co`), or fetch the model into the mounted cache first",
        source="vLLM 0.26 log; huggingface_hub, httpx and requests",
        unless=_NOT_THE_HUB,
    ),
    Rule(
        id="hub_unauthorized",
        patterns=(rf"(?P<status>401|403) Client Error: (?:Unauthorized|Forbidden) for url: {_REPO}"
                  r"/(?:resolve|tree|raw)/",
                  rf"Client error '(?P<status>401|403) \w+' for url '{_REPO}/(?:resolve|tree"
                  rf"|raw)/"),
        cause="the hub does not give {repo} to this token, or to none ({status}): it is gated or"
              " private, or the name is wrong",
        fix="check the name; if it is gated, accept the licence at https://huggingface.co/{repo};"
             " set a Hugging Face token of an account that has access (huggingFaceToken, HF_TOKEN)",
        source="opea GenAIExamples#2237; huggingface_hub",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="hub_file_missing",
        patterns=(rf"Entry Not Found for url: {_REPO}/resolve/[^/]+/(?P<file>\S+?)\.?$",
                  rf"404 Client Error: Not Found for url: {_REPO}/resolve/[^/]+/(?P<file>\S+?)\.?$",
                  r"(?:^|\s)(?P<repo>\S{1,200}) does not appear to have a file named"
                  r" (?P<file>\S+?)\.?(?:\s|$)"),
        cause="{repo} has no file {file}",
        fix="check that the repository is a model for vLLM (with {file}) and that it is complete",
        source="huggingface_hub EntryNotFoundError; transformers utils/hub.py",
        rank=Rank.GENERAL,
    ),
)  # fmt: skip
