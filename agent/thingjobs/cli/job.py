"""For handlers that are scripts: reads the job, and speaks to the agent. Only a running handler has a job.

Each call starts an interpreter, which takes some 50 ms; `get` takes several keys at once. fail, reject and retry end
with the exit status that the agent expects, so write `exec thingjobs job fail "the valve does not answer"`.

Exit code: 0 done; 1 no such value, no such file, or what fail and reject say; 75 what retry says; 2 a wrong call.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from thingjobs.child.context import JobContext, read_job
from thingjobs.cli import FAILED, USAGE, complain, print_help
from thingjobs.errors import ThingjobsError
from thingjobs.handler import Failed, HandlerSignal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    Json = dict[str, Any]
    Action = Callable[[JobContext, argparse.Namespace], int]

#: The exit status of a verb that is to be called again later (thingjobs.handler.Exit.LATER).
LATER = 75
_NOTHING = object()
#: A status detail; AWS takes no other letters in a key.
_PAIR = re.compile(r"[a-zA-Z0-9:_-]{1,128}=")


def add_to(commands: Any) -> None:
    """Add this command and what it can do."""
    introduction, _, rest = (__doc__ or "").partition("\n\n")
    parser = commands.add_parser(
        "job", help="for handler scripts: read the job, report", description=introduction, epilog=rest
    )
    parser.set_defaults(parser=parser, command=print_help)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    _add_reading(actions)
    _add_reports(actions)
    _add_endings(actions)


def _add_reading(actions: Any) -> None:
    get = _action(actions, "get", "print values of job.json, one a line", _get)
    get.add_argument("keys", metavar="KEY", nargs="+", help="such as params.name, params.hosts.0 or jobId")
    get.add_argument("--or", dest="otherwise", metavar="TEXT", help="print this for a value that is not there")

    fetch = _action(actions, "download", "fetch a file, resumed and checked; reports its progress", _download)
    fetch.add_argument("url", metavar="URL", help="one that stands in the params is asked for anew when it expires")
    fetch.add_argument("file", metavar="FILE", help="where to; relative to $JOB_DIR")
    fetch.add_argument("--digest", default="", help="sha256:HEX, sha384:HEX or sha512:HEX")
    fetch.add_argument("--size", type=int, metavar="BYTES", help="that it must have")
    fetch.add_argument("--max", type=int, metavar="BYTES", help="that it may have")

    refresh = _action(actions, "refresh", "ask the agent for fresh params, and wait for them", _refresh)
    refresh.add_argument("--cloud", action="store_true", help="ask for AWS credentials instead")
    refresh.add_argument("--timeout", type=float, metavar="SECONDS", help="how long; default 60, for --cloud 120")

    cloud = _action(actions, "cloud", "print fresh AWS credentials, and where the services are", _cloud)
    forms = cloud.add_mutually_exclusive_group()
    forms.add_argument("--env", action="store_true", help='as export lines for eval "$(…)"; so without an option, too')
    forms.add_argument("--process", action="store_true", help="as JSON, for credential_process of ~/.aws/config")


def _add_reports(actions: Any) -> None:
    progress = _action(actions, "progress", "report how far the verb is", _progress)
    progress.add_argument("percent", metavar="PERCENT", type=float, help="0 to 100")
    progress.add_argument("message", metavar="MESSAGE", nargs="?", default="", help="a few words")

    detail = _action(actions, "detail", "add to the status details of the job", _detail)
    detail.add_argument("pairs", metavar="KEY=VALUE", nargs="+", help="the key of letters, digits, : _ and -")


def _add_endings(actions: Any) -> None:
    fail = _action(actions, "fail", "say why the verb failed; exits 1", _fail)
    fail.add_argument("reason", metavar="REASON", help="a sentence: what is wrong, and what to do")
    fail.add_argument("--code", default="", help="one of the published codes; the agent chooses one otherwise")

    reject = _action(actions, "reject", "say why this job must never be tried here; exits 1", _reject)
    reject.add_argument("reason", metavar="REASON", help="a sentence: what is wrong, and what to do")

    retry = _action(actions, "retry", "ask to be called again later; exits 75", _retry)
    retry.add_argument("reason", metavar="REASON", help="what is being waited for")
    retry.add_argument("--after", metavar="SECONDS", type=float, help="not before; the agent chooses otherwise")


def _action(actions: Any, name: str, summary: str, action: Action) -> Any:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = actions.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(parser=parser, command=lambda chosen: _inside(action, chosen))
    return parser


def _inside(action: Action, chosen: argparse.Namespace) -> int:
    """Carry out an action for the job that we are called from."""
    missing = [name for name in ("JOB_DIR", "JOB_EVENTS") if not os.environ.get(name)]
    if missing:
        complain(f"there is no job here: ${missing[0]} is not set; only a handler that the agent started has one")
        return USAGE
    folder = os.environ["JOB_DIR"]
    try:
        events = os.open(os.environ["JOB_EVENTS"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        context = JobContext(read_job(folder), folder, events)
        return action(context, chosen)
    except KeyError as error:
        complain(f"cannot read the job in {folder}: job.json has no {error.args[0]}")
    except (OSError, ValueError) as error:
        complain(f"cannot read or report the job in {folder}: {error}")
    return USAGE


# --- reading ------------------------------------------------------------------------------------------------------


def _get(context: JobContext, chosen: argparse.Namespace) -> int:
    found = [_found(context.job, key) for key in chosen.keys]
    missing = [key for key, value in zip(chosen.keys, found, strict=True) if value is _NOTHING]
    if missing and chosen.otherwise is None:
        complain(f"the job has no {missing[0]}; with --or TEXT that is no error")
        return FAILED
    texts = [chosen.otherwise if value is _NOTHING else _text(value) for value in found]
    if len(texts) > 1 and any("\n" in text for text in texts):
        complain("a value has more than one line: get it with a call of its own")
        return FAILED
    print(*texts, sep="\n")
    return 0


def _found(job: Any, key: str) -> Any:
    """Return what stands at `a.b.0`; null counts as nothing."""
    for part in key.split("."):
        if isinstance(job, dict) and part in job:
            job = job[part]
        elif isinstance(job, list) and part.isdecimal() and int(part) < len(job):
            job = job[int(part)]
        else:
            return _NOTHING
    return _NOTHING if job is None else job


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _download(context: JobContext, chosen: argparse.Namespace) -> int:
    context.listen()
    return _asked(
        context,
        lambda: context.download(chosen.url, chosen.file, digest=chosen.digest, size=chosen.size, max_bytes=chosen.max),
    )


def _refresh(context: JobContext, chosen: argparse.Namespace) -> int:
    context.listen()
    if chosen.cloud:
        return _asked(context, lambda: _credentials(context, chosen.timeout))
    return _asked(context, lambda: context.refresh(60.0 if chosen.timeout is None else chosen.timeout))


def _cloud(context: JobContext, chosen: argparse.Namespace) -> int:
    context.listen()
    return _asked(context, lambda: print((_as_process if chosen.process else _as_exports)(_credentials(context, None))))


def _credentials(context: JobContext, timeout: float | None) -> Json:
    """Return `cloud` of job.json with fresh credentials in it.

    Raises:
        Failed: the agent asked this verb to stop.
        CloudError: there are none.
    """
    from thingjobs.child.wishes import CLOUD_SECONDS, ask_for_cloud  # noqa: PLC0415 - most of this needs no cloud
    from thingjobs.cloud.session import issued_of  # noqa: PLC0415

    if context.dry_run:
        raise Failed("a dry run has no AWS credentials: look at dryRun before you ask for them")
    seconds = CLOUD_SECONDS if timeout is None else timeout
    told = ask_for_cloud(context, os.environ["JOB_DIR"], timeout=seconds)
    issued_of(told)
    return told


def _as_exports(told: Json) -> str:
    """Return lines for a shell. Source: "Environment variables to configure the AWS CLI" in its user guide."""
    found = told["credentials"]
    values = {
        "AWS_ACCESS_KEY_ID": found["accessKeyId"],
        "AWS_SECRET_ACCESS_KEY": found["secretAccessKey"],
        "AWS_SESSION_TOKEN": found["sessionToken"],
        "AWS_CREDENTIAL_EXPIRATION": found["expiration"],
        "AWS_REGION": told["region"],
        "AWS_DEFAULT_REGION": told["region"],
        "AWS_ENDPOINT_URL_S3_CONTROL": told["s3ControlUrl"],
        "AWS_ENDPOINT_URL_BATCH": told["batchUrl"],
        "AWS_USE_FIPS_ENDPOINT": "true" * bool(told.get("fips")),
        "AWS_USE_DUALSTACK_ENDPOINT": "true" * bool(told.get("dualstack")),
        "AWS_CA_BUNDLE": told["caBundle"],
        "HTTPS_PROXY": told["proxy"],
    }
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items() if value)


def _as_process(told: Json) -> str:
    """Return what the AWS CLI and SDKs take from a program. Source: their guide, "Process credential provider"."""
    found = told["credentials"]
    values = {
        "Version": 1,
        "AccessKeyId": found["accessKeyId"],
        "SecretAccessKey": found["secretAccessKey"],
        "SessionToken": found["sessionToken"],
        "Expiration": found["expiration"],
    }
    return json.dumps({name: value for name, value in values.items() if value})


def _asked(context: JobContext, ask: Callable[[], object]) -> int:
    try:
        ask()
    except HandlerSignal as said:
        reason, code = said.reason, said.code
    except ThingjobsError as error:
        from thingjobs.cloud.errors import CloudError  # noqa: PLC0415
        from thingjobs.cloud.outcomes import why  # noqa: PLC0415

        reason, code = str(error), why(error) if isinstance(error, CloudError) else ""
    else:
        return 0
    context.tell({"reason": reason, "code": code} if code else {"reason": reason})
    complain(reason)
    return FAILED


# --- speaking -----------------------------------------------------------------------------------------------------


def _progress(context: JobContext, chosen: argparse.Namespace) -> int:
    context.progress(chosen.percent, chosen.message)
    return 0


def _detail(context: JobContext, chosen: argparse.Namespace) -> int:
    bad = [pair for pair in chosen.pairs if not _PAIR.match(pair)]
    if bad:
        complain(f"{bad[0]!r} is no KEY=VALUE with a key of letters, digits, : _ and -")
        return USAGE
    context.emit({"details": dict(pair.split("=", 1) for pair in chosen.pairs)})
    return 0


def _fail(context: JobContext, chosen: argparse.Namespace) -> int:
    context.tell({"reason": chosen.reason, **({"code": chosen.code} if chosen.code else {})})
    return FAILED


def _reject(context: JobContext, chosen: argparse.Namespace) -> int:
    context.tell({"reason": chosen.reason, "code": "handler.rejected", "reject": True})
    return FAILED


def _retry(context: JobContext, chosen: argparse.Namespace) -> int:
    context.tell({"reason": chosen.reason, **({"after": chosen.after} if chosen.after is not None else {})})
    return LATER
