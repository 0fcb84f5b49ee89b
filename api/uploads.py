"""Takes in the code of pipelines in Python, for any transport: parts in the blob store, whole files by their content.

Like `Publisher`: a transport parses a message of CodeService, makes a `Call` and hands both over.  What is taken in is
data: nothing of it is run or imported.  Parts that nobody asks for any more are removed by `api.blob_sweep`, files by
`api.code_sweep`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import replace
from typing import Any

from api.admission import refuse
from api.asked import check_call
from api.blobs import Blobs, Ref
from api.calls import Access, Call, Everybody
from api.code_store import CodeStore
from api.code_tar import MOST_BYTES, MOST_FILES, CodeRefused, check_tar
from api.errors import ApiError, DataLoss, FieldViolation, PermissionDenied, ResourceExhausted, Unavailable
from api.gen.michelangelo.platform.v1 import code_service_pb2 as wire
from api.outcomes import entry_of
from api.representable import faults
from api.resources import Resources
from api.store.base import Key
from api.validation import shown

LARGEST_PART = 2 * 1024 * 1024
MOST_PARTS = 12
LARGEST_TAR = MOST_BYTES + 2 * 1024 * MOST_FILES
LARGEST_DIFF = 1024 * 1024
FORMS = {wire.PutCodeRequest.TAR: ("tar", LARGEST_TAR), wire.PutCodeRequest.DIFF: ("diff", LARGEST_DIFF)}
DIGEST = re.compile(r"[0-9a-f]{64}\Z")
PART = re.compile(r"(?P<day>[0-9]{1,9})-(?P<digest>[0-9a-f]{64})-(?P<size>[0-9]{1,7})\Z")
# Whoever may make either of these brings its code along.
MAKES = ("Pipeline", "PipelineRun")


class Uploads:
    """Takes code in.  `access`: who may; `artifacts_url`: where code is stored."""

    def __init__(self, resources: Resources, blobs: Blobs, artifacts_url: str, access: Access | None = None) -> None:
        self._resources = resources
        self._blobs = blobs
        self._store = CodeStore(artifacts_url)
        self._access = access or Everybody()

    async def put_part(self, call: Call, request: Any) -> Any:
        """Keep what a PutPartRequest holds.  Raises `api.errors`."""
        return await self._recorded(call, "PutPart", request, self._part)

    async def put_code(self, call: Call, request: Any) -> Any:
        """Store what a PutCodeRequest names, or tell whether it is there.  Raises `api.errors`."""
        return await self._recorded(call, "PutCode", request, self._code)

    async def _recorded(self, call: Call, verb: str, request: Any, work: Any) -> Any:
        """Let a caller in who may, and leave one audit record whatever comes of it."""
        key = Key(MAKES[0], request.namespace, "")
        outcome, reason = "OK", ""
        try:
            check_call(call, mutating=True)
            refuse(list(faults(request)))
            await self._require(call, request.namespace)
            return await work(request)
        except ApiError as error:
            outcome, reason = error.code, error.reason
            raise
        finally:
            if call.principal.kind != "system":
                entry = entry_of(call, verb, key, self._access.policy)
                await self._resources.record(replace(entry, outcome=outcome, reason=reason))

    async def _require(self, call: Call, namespace: str) -> None:
        try:
            await self._access.require(call, "Create", MAKES[0], namespace)
        except PermissionDenied:
            await self._access.require(call, "Create", MAKES[1], namespace)

    async def _part(self, request: Any) -> Any:
        if not 0 < len(request.data) <= LARGEST_PART:
            told = f"has {len(request.data)} bytes: give 1 to {LARGEST_PART} in each part"
            refuse([FieldViolation("data", told, reason="TOO_LARGE" if request.data else "MISSING_FIELD")])
        ref = await self._blobs.put(request.namespace, request.data)
        return wire.PutPartResponse(part=f"{ref.day}-{ref.digest}-{ref.size}")

    async def _code(self, request: Any) -> Any:
        refs = _refs(request)
        suffix, largest = FORMS[request.form]
        place = (request.namespace, request.sha256)
        uri = self._store.uri(*place, suffix)
        # First: who removes what is unused looks at this after it has removed, and puts back what is wanted.
        await self._do(lambda: self._store.want(*place, suffix))
        if await self._do(lambda: self._store.has(*place, suffix)):
            return wire.PutCodeResponse(uri=uri, stored=True)
        if not refs:
            return wire.PutCodeResponse(uri=uri)
        size = sum(ref.size for ref in refs)
        if size > largest:
            told = f"have {size} bytes, at most {largest} are stored: leave out what is no code, by .maignore"
            raise ResourceExhausted(f"parts {told}", reason="TOO_LARGE", violations=[FieldViolation("parts", told)])
        data = b"".join([await self._read(request.namespace, position, ref) for position, ref in enumerate(refs)])
        await asyncio.to_thread(_check, data, request.sha256, suffix)
        await self._do(lambda: self._store.put(*place, data, suffix))
        return wire.PutCodeResponse(uri=uri, stored=True)

    async def _read(self, namespace: str, position: int, ref: Ref) -> bytes:
        try:
            return await self._blobs.get(namespace, ref)
        except DataLoss as error:
            told = "is not kept any more, or never was: send it again"
            refuse([FieldViolation(f"parts[{position}]", told, reason="UNKNOWN_PART")])
            raise AssertionError("refused") from error

    @staticmethod
    async def _do(work: Any) -> Any:
        try:
            return await asyncio.to_thread(work)
        except ApiError:
            raise
        except OSError as error:
            told = f"the artifact store does not answer: {type(error).__name__}; try again, or look at MA_ARTIFACTS"
            raise Unavailable(told, reason="ARTIFACTS_UNAVAILABLE") from error


def _refs(request: Any) -> list[Ref]:
    """Return the parts that a PutCodeRequest names.  Raises InvalidArgument with every fault."""
    found = []
    if not DIGEST.match(request.sha256):
        found.append(FieldViolation("sha256", "must be 64 hexadecimal digits", shown(request.sha256)))
    if request.form not in FORMS:
        found.append(FieldViolation("form", "must be TAR or DIFF"))
    if len(request.parts) > MOST_PARTS:
        found.append(
            FieldViolation("parts", f"has {len(request.parts)} entries, at most {MOST_PARTS} are put together")
        )
    matches = [PART.match(part) for part in request.parts[:MOST_PARTS]]
    for position, match in enumerate(matches):
        if match is None:
            told = "is no part: give what PutPart answered"
            found.append(FieldViolation(f"parts[{position}]", told, shown(request.parts[position])))
    refuse(found)
    return [Ref(int(match["day"]), match["digest"], int(match["size"])) for match in matches if match]


def _check(data: bytes, digest: str, suffix: str) -> None:
    """Raise InvalidArgument for a file that is not what its name says, or is none that may be stored."""
    got = hashlib.sha256(data).hexdigest()
    if got != digest:
        told = f"is {digest[:12]}…, and the parts together are {got[:12]}…: send them again, in order"
        refuse([FieldViolation("sha256", told, reason="DIGEST_DIFFERS")])
    if suffix == "tar":
        try:
            check_tar(data)
        except CodeRefused as error:
            refuse(
                [FieldViolation("parts", f"{shown(one.path)} {one.told}", reason=one.reason) for one in error.refusals]
            )
