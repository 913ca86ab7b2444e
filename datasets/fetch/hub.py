"""Fetch files of Hugging Face data set repositories.

The listing, log-in and errors are those of huggingface_hub. The bytes come through
:mod:`flare_geo.datasets.fetch.download`: since its version 1.18 that library fetches a broken file
again from its beginning (https://github.com/huggingface/huggingface_hub/issues/4196), and it
compares no checksum. Once that issue is closed and the oldest version that pyproject.toml allows
resumes and checks, ``hf_hub_download`` replaces ``fetch`` here.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from flare_geo.datasets.fetch.download import (
    RefusedError,
    RemoteFile,
    check_space,
    fetch,
    in_words,
    missing_bytes,
)
from flare_geo.datasets.source import SOURCE
from flare_geo.files import write_aside

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile, RepoFolder

HUB = "https://huggingface.co"
BATCH = 500  # paths that one question to the hub may name
WILD = ("*", "?", "[")


def download_hub(
    repo_id: str,
    folder: str | Path,
    names: str | Sequence[str],
    *,
    revision: str = "main",
    licence: str,
    note: str = "",
    log: bool = True,
) -> list[Path]:
    """Fetch files of a Hugging Face data set repository, under their paths, into a folder.

    How many files, how large and under which licence is said before the first byte. Files that
    are there and right (size and checksum) are kept; a broken download is resumed where it broke,
    also in a later run; a file has its name only when it is complete and right. Where the data
    come from is written to ``SOURCE.json`` in the folder.

    ``HF_ENDPOINT`` names another hub; who is logged in (``hf auth login``, ``HF_TOKEN``) is asked
    as that. Files of more than 50 GB are not given out over plain HTTP.

    Args:
        repo_id: ``"owner/name"``.
        folder: Made if missing.
        names: Paths in the repository, or globs; ``*`` also matches ``/``.
        revision: Branch, tag or commit; all files are of the commit it stands for at the start.
        licence: Of the data, said before fetching.
        note: A further sentence to say, such as a limit of their use.
        log: Say what is fetched, show progress on a terminal.

    Returns:
        The files, in the order of ``names``; those of one glob sorted.

    Raises:
        FileNotFoundError: no such repository, revision or file; names the nearest there are.
        PermissionError: a licence must be accepted, or a log-in is missing.
        FileExistsError: the folder holds a generated set.
        OSError: no network, no room on the disk, or the hub breaks off repeatedly.
        ValueError: a file is not the one that the hub lists.

    Example:
        >>> download_hub("vedantpuri/LPBF_FLARE", "data/lpbf", "test/*.npz", licence="MIT")
        [PosixPath('data/lpbf/test/case00003_...npz'), ...]
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    folder = Path(folder).expanduser()
    source = folder / SOURCE
    _refuse_generated(source)
    names = [names] if isinstance(names, str) else list(names)
    api = HfApi(endpoint=(os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"))
    with _one_line_errors(api, repo_id, revision):
        commit = str(api.dataset_info(repo_id, revision=revision).sha)
        files = _find(api, repo_id, commit, names)
        headers = build_hf_headers()
    size = sum(file.size for file in files)
    missing = missing_bytes(files, folder)
    if log:
        there = f", {in_words(size - missing)} of them here already" if missing < size else ""
        lines = [
            f"{repo_id}: {len(files)} file{'s' * (len(files) != 1)}, {in_words(size)}{there}, "
            f"licence: {licence}; {_page(api, repo_id)} at {commit[:12]}",
            *([note] if note else []),
        ]
        print("\n".join(lines), file=sys.stderr)
    check_space(missing, folder)
    base_url = f"{_page(api, repo_id)}/resolve/{commit}"
    quiet = not (log and sys.stderr.isatty())
    paths = []
    with tqdm(total=size, unit="B", unit_scale=True, desc=repo_id, disable=quiet) as bar:
        for file in files:
            bar.set_postfix_str(file.name[-40:])
            try:
                paths.append(fetch(file, base_url, folder, headers=headers, advance=bar.update))
            except RefusedError as error:
                raise _refused(api, repo_id, str(error)) from None
    record = {"generated": False, "repository": repo_id, "revision": commit, "licence": licence}
    text = json.dumps(record, indent=2) + "\n"
    if source not in paths and not (source.is_file() and source.read_text("utf-8") == text):
        with write_aside(source) as aside:
            aside.write_text(text, encoding="utf-8")
    return paths


def _find(api: HfApi, repo_id: str, commit: str, names: list[str]) -> list[RemoteFile]:
    """What the hub lists for each name, each file once."""
    exact = [name for name in names if not _is_glob(name)]
    listed: dict[str, RemoteFile] = {}
    for i in range(0, len(exact), BATCH):
        some = exact[i : i + BATCH]
        listed |= _remote(api.get_paths_info(repo_id, some, repo_type="dataset", revision=commit))
    found: dict[str, RemoteFile] = {}
    for name in names:
        if not _is_glob(name):
            hits = {name: listed[name]} if name in listed else {}
        else:
            below = _remote(_list(api, repo_id, commit, _fixed_folder(name), True))
            hits = {k: below[k] for k in sorted(below) if fnmatch.fnmatchcase(k, name)}
        if not hits:
            near = _nearest(api, repo_id, commit, name)
            raise FileNotFoundError(f"{repo_id} has no file '{name}' at {commit[:12]}; {near}")
        found |= hits
    return list(found.values())


def _nearest(api: HfApi, repo_id: str, commit: str, name: str) -> str:
    """The names most like a missing one, in its folder or else in the whole repository's root."""
    for folder in (_fixed_folder(name), ""):
        if there := sorted(info.path for info in _list(api, repo_id, commit, folder, False)):
            near = difflib.get_close_matches(name, there, n=3, cutoff=0.4) or there[:3]
            more = f" and {len(there) - len(near)} more" if len(there) > len(near) else ""
            return f"in {folder or 'its root'} there are {', '.join(near)}{more}"
    return "it is empty"


def _list(
    api: HfApi, repo_id: str, commit: str, folder: str, recursive: bool
) -> list[RepoFile | RepoFolder]:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return list(
            api.list_repo_tree(
                repo_id, folder or None, recursive=recursive, revision=commit, repo_type="dataset"
            )
        )
    except EntryNotFoundError:
        return []


def _remote(infos: Iterable[RepoFile | RepoFolder]) -> dict[str, RemoteFile]:
    """The files among them by path, with the checksum that the hub knows of each."""
    from huggingface_hub.hf_api import RepoFile

    return {
        info.path: RemoteFile(
            info.path, info.size, None if info.lfs is None else info.lfs.sha256, info.blob_id
        )
        for info in infos
        if isinstance(info, RepoFile)
    }


def _is_glob(name: str) -> bool:
    return any(c in name for c in WILD)


def _fixed_folder(name: str) -> str:
    """The folders of a name before its first wild one."""
    parts = name.split("/")[:-1]
    wild = next((i for i, part in enumerate(parts) if _is_glob(part)), len(parts))
    return "/".join(parts[:wild])


def _page(api: HfApi, repo_id: str) -> str:
    return f"{api.endpoint}/datasets/{repo_id}"


def _refused(api: HfApi, repo_id: str, why: str) -> PermissionError:
    return PermissionError(
        f"{repo_id}: access is refused ({why}); accept its licence at {_page(api, repo_id)} "
        "and log in: hf auth login"
    )


def _refuse_generated(source: Path) -> None:
    """Real files beside generated ones would be taken for generated, or the other way round."""
    if not source.is_file():
        return
    try:
        record = json.loads(source.read_text(encoding="utf-8"))
    except ValueError:
        record = {}
    if isinstance(record, dict) and record.get("generated"):
        raise FileExistsError(f"{source.parent} holds a generated set: choose another folder")


@contextmanager
def _one_line_errors(api: HfApi, repo_id: str, revision: str) -> Iterator[None]:
    from huggingface_hub import errors

    page = _page(api, repo_id)
    try:
        yield
    except errors.HFValidationError:
        raise ValueError(f"'{repo_id}' is not the name of a repository: owner/name") from None
    except errors.GatedRepoError as error:
        raise _refused(api, repo_id, f"HTTP {error.response.status_code}") from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"there is no data set {page}, or it is private: check the name, or hf auth login"
        ) from None
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(f"{page} has no revision '{revision}'") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise _refused(api, repo_id, f"HTTP {code}") from None
        raise OSError(f"cannot list {page}: HTTP {code}") from None
    except FileNotFoundError:
        raise
    except (errors.HTTPError, OSError, ValueError) as error:
        cause = str(error).partition("\n")[0] or type(error).__name__
        raise OSError(f"cannot reach {page}: {cause}") from None
