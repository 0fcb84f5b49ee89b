"""Blocking client of the API for operators, the CLI and the inference server.  Importing it loads no gRPC.

Airflow's scheduler imports operators and then forks its workers; gRPC does not survive a fork, so it is imported by the
first call, in the process that makes it.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from api import errors
from api.config import Config, TlsConfig

if TYPE_CHECKING:
    import grpc

    from api.kinds import Kind

# In whose name is applied, unless another is given: that of `ma apply`.
MANAGER = "ma"
TIMEOUT_S = 30.0
NO_TLS = TlsConfig()
RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 2.0
ATTEMPTS = 5
PART_BYTES = 2 * 1024 * 1024
# A lost connection is made anew as soon as a call is tried again; gRPC alone would wait a second, then longer.  It is
# one client's own: closed with it, and not taken over by the next one to the same address.
CONNECTION = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", round(1000 * RETRY_FIRST_S)),
    ("grpc.min_reconnect_backoff_ms", round(1000 * RETRY_FIRST_S)),
    ("grpc.max_reconnect_backoff_ms", round(1000 * RETRY_LONGEST_S)),
]


class Client:
    """Calls the API server at `address` (host:port).  Every method raises `api.errors`.

    timeout_s: how long a call may take, with its retries while the server is unreachable or has too much to do; token:
    who calls; warn: is told what the server has to say about calls that it carried out.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = TIMEOUT_S,
        token: str = "",
        tls: TlsConfig = NO_TLS,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._address = address
        self._warn = warn
        self._timeout_s = timeout_s
        self._token = token
        self._tls = tls
        self._channel: grpc.Channel | None = None

    @classmethod
    def of(cls, config: Config, *, timeout_s: float = TIMEOUT_S, warn: Callable[[str], None] | None = None) -> Client:
        """Return a client of a configuration's API server, with its token."""
        return cls(config.api_address, timeout_s=timeout_s, token=config.own_token, tls=config.tls, warn=warn)

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, kind: str, namespace: str, name: str) -> Any:
        """Return one object.  Raises NotFound."""
        return self._one(kind, "Get", name=name, namespace=namespace)

    def find(self, kind: str, namespace: str, name: str) -> Any | None:
        """Return one object, None if it does not exist."""
        try:
            return self.get(kind, namespace, name)
        except errors.NotFound:
            return None

    def create(self, resource: Any, *, dry_run: bool = False) -> Any:
        """Store a new object and return it."""
        return self._write(resource, "Create", "create_options", dry_run)

    def update(self, resource: Any, *, dry_run: bool = False) -> Any:
        """Replace metadata and spec and return the object."""
        return self._write(resource, "Update", "update_options", dry_run)

    def apply(
        self,
        resource: Any,
        manager: str = MANAGER,
        *,
        force: bool = False,
        replace: bool = False,
        base: str | None = None,
        dry_run: bool = False,
    ) -> tuple[Any, str]:
        """Declare the fields that `manager` wants; return the object and what happened: created, configured, unchanged.

        What it declared before and does not now is taken away; fields of others stay.  What the server keeps of the
        metadata is not looked at.  replace: the spec becomes exactly this one; base: of a plan, for that state alone.
        Raises Conflict: APPLY_CONFLICT for fields of others, unless they are taken over by force; PLAN_OUTDATED.
        """
        from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire

        request = wire.ApplyRequest(field_manager=manager, force=force, replace=replace, base=base, dry_run=dry_run)
        request.object.Pack(_as_declared(resource))
        service: Any = wire.DESCRIPTOR.services_by_name["ResourceService"]
        answer = self._carry_out(service.methods_by_name["Apply"], request)
        stored = type(resource)()
        answer.object.Unpack(stored)
        return stored, wire.ApplyResponse.Outcome.Name(answer.outcome).lower()

    def plan(
        self, resources: Sequence[Any], manager: str = MANAGER, *, force: bool = False, replace: bool = False
    ) -> Any:
        """Return what applying some resources would change, as a PlanResponse.  Raises what the apply would."""
        from api.gen.michelangelo.platform.v1 import resource_service_pb2 as wire

        request = wire.PlanRequest(field_manager=manager, force=force, replace=replace)
        for resource in resources:
            request.objects.add().Pack(_as_declared(resource), deterministic=True)
        service: Any = wire.DESCRIPTOR.services_by_name["ResourceService"]
        return self._carry_out(service.methods_by_name["Plan"], request)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete one object.  Raises NotFound."""
        self._call(kind, "Delete", {"name": name, "namespace": namespace})

    def list(
        self,
        kind: str,
        namespace: str = "",
        *,
        selector: str = "",
        limit: int = 0,
        order: Sequence[tuple[str, bool]] = (),
        equal: Mapping[str, str | int] | None = None,
    ) -> list[Any]:
        """Return objects.  `order`: (field, descending); `equal`: indexed fields and the values they must have.

        Raises Expired when objects of the kind change faster than they can be read.
        """
        for attempt in range(ATTEMPTS):
            try:
                return list(self._pages(kind, namespace, selector, limit, order, equal or {}))
            except errors.Expired:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def publish(
        self,
        name: str,
        data: Any = None,
        *,
        namespace: str,
        key: str = "",
        source: str = "",
        subject: str = "",
        attributes: Mapping[str, str] | None = None,
        cause: str = "",
        ttl_s: float = 0,
    ) -> Any:
        """Say that something happened: `event`, what it is called, and whether it was there already, `duplicate`.

        data: what JSON holds; key: of one name, source and key there is one event, empty makes another one each time;
        cause: the run in which it is said, as PROJECT/RUN.  Raises ValueError for data that is no JSON.
        """
        from api.gen.michelangelo.platform.v1 import broker_service_pb2 as wire
        from api.messages.free import fill

        request = wire.PublishRequest(namespace=namespace, name=name, key=key, source=source, subject=subject)
        request.attributes.update(attributes or {})
        if data is not None:
            fill(request.data, data)
        if cause:
            request.cause.namespace, _, request.cause.name = cause.rpartition("/")
        if ttl_s:
            request.ttl.FromMilliseconds(round(1000 * ttl_s))
        service: Any = wire.DESCRIPTOR.services_by_name["BrokerService"]
        return self._carry_out(service.methods_by_name["Publish"], request)

    def put_code(self, namespace: str, data: bytes, form: str = "TAR", *, keep: bool = True) -> str:
        """Store packed code, or a difference, form DIFF, where runs find it, and return its URI.  Once for one content.

        keep: else nothing is sent, and the URI is where it would be.
        """
        import hashlib

        from api.gen.michelangelo.platform.v1 import code_service_pb2 as wire

        methods: Any = wire.DESCRIPTOR.services_by_name["CodeService"].methods_by_name
        request = wire.PutCodeRequest(
            namespace=namespace, sha256=hashlib.sha256(data).hexdigest(), form=wire.PutCodeRequest.Form.Value(form)
        )
        answer = self._carry_out(methods["PutCode"], request)
        if keep and not answer.stored:
            for begin in range(0, len(data), PART_BYTES):
                part = wire.PutPartRequest(namespace=namespace, data=data[begin : begin + PART_BYTES])
                request.parts.append(self._carry_out(methods["PutPart"], part).part)
            answer = self._carry_out(methods["PutCode"], request)
        return str(answer.uri)

    def can_i(self, verb: str = "", kind: str = "", namespace: str = "") -> Any:
        """Return who calls, and whether it may: `subject`, `groups`, `allowed` and, if not, the `reason`."""
        return self._ask("CanI", verb, kind, namespace)

    def who_can(self, verb: str, kind: str, namespace: str = "") -> Sequence[str]:
        """Return who may, as `user:alice`.  Raises PermissionDenied for all but administrators."""
        return list(self._ask("WhoCan", verb, kind, namespace).subjects)

    def _ask(self, method: str, verb: str, kind: str, namespace: str) -> Any:
        from api.gen.michelangelo.platform.v1 import access_service_pb2 as wire

        described: Any = wire.DESCRIPTOR.services_by_name["AccessService"].methods_by_name[method]
        asked = described.input_type._concrete_class(verb=verb, kind=kind, namespace=namespace)
        return self._carry_out(described, asked)

    def _pages(
        self,
        kind: str,
        namespace: str,
        selector: str,
        limit: int,
        order: Sequence[tuple[str, bool]],
        equal: Mapping[str, str | int],
    ) -> Iterator[Any]:
        request = self._request(kind, "List", {"namespace": namespace})
        request.list_options.labelSelector = selector
        _extend(request.list_options_ext, order, equal)
        count = 0
        while True:
            # A page may have less than its limit: it ends where it would be too large to receive.
            request.list_options.limit = limit - count if limit else 0
            listing = getattr(self._send(kind, "List", request), f"{self._kind(kind).singular}_list")
            yield from listing.items
            count += len(listing.items)
            token = getattr(listing.metadata, "continue")
            if not token or (limit and count >= limit):
                return
            setattr(request.list_options, "continue", token)

    def _write(self, resource: Any, verb: str, options: str, dry_run: bool) -> Any:
        kind = resource.DESCRIPTOR.name
        request = self._request(kind, verb, {})
        getattr(request, self._kind(kind).singular).CopyFrom(resource)
        if dry_run:
            getattr(request, options).dryRun.append("All")
        return getattr(self._send(kind, verb, request), self._kind(kind).singular)

    def _one(self, kind: str, verb: str, **fields: str) -> Any:
        return getattr(self._call(kind, verb, fields), self._kind(kind).singular)

    def _call(self, kind: str, verb: str, fields: Mapping[str, Any]) -> Any:
        return self._send(kind, verb, self._request(kind, verb, fields))

    @staticmethod
    def _kind(name: str) -> Kind:
        from api.kinds import kinds

        return kinds()[name]

    def _request(self, kind: str, verb: str, fields: Mapping[str, Any]) -> Any:
        described: Any = self._kind(kind).method(verb).input_type
        return described._concrete_class(**fields)

    def _send(self, kind: str, verb: str, request: Any) -> Any:
        return self._carry_out(self._kind(kind).method(verb), request)

    def _carry_out(self, method: Any, request: Any) -> Any:
        import grpc

        if self._channel is None:
            self._channel = self._open()
        call: Any = self._channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.output_type._concrete_class.FromString,
        )
        # One name for all tries: whatever became of an earlier one, the call has one effect.
        metadata = [("x-request-id", str(uuid.uuid4()))]
        if self._token:
            metadata.append(("authorization", f"Bearer {self._token}"))
        deadline = time.monotonic() + self._timeout_s
        pause_s = RETRY_FIRST_S
        while True:
            left_s = deadline - time.monotonic()
            try:
                answer, ended = call.with_call(request, timeout=max(left_s, 0.001), metadata=metadata)
                self._tell(ended)
                return answer
            except grpc.RpcError as error:
                refused = refusal(error, self._address)
                wait_s = _pause_s(refused, pause_s)
                if wait_s is None or left_s < wait_s:
                    raise refused from None
            time.sleep(wait_s)
            pause_s = min(pause_s * 2, RETRY_LONGEST_S)

    def _tell(self, ended: Any) -> None:
        for key, value in (ended.trailing_metadata() or ()) if self._warn else ():
            if key == "warning" and self._warn:
                self._warn(value.removeprefix('299 - "').removesuffix('"'))

    def _open(self) -> grpc.Channel:
        import grpc

        if not self._tls.on:
            return grpc.insecure_channel(self._address, options=CONNECTION)
        files = (self._tls.trusted, self._tls.client_key, self._tls.client_cert)
        credentials = grpc.ssl_channel_credentials(*(None if path is None else path.read_bytes() for path in files))
        return grpc.secure_channel(self._address, credentials, CONNECTION)


def _as_declared(resource: Any) -> Any:
    """Return a resource without what the server keeps of it, as of one that was read."""
    made = type(resource)()
    made.CopyFrom(resource)
    for field in ("uid", "resourceVersion", "managedFields"):
        made.metadata.ClearField(field)
    return made


def _pause_s(refused: errors.ApiError, pause_s: float) -> float | None:
    """Return the seconds to wait before a call is tried again, None if it is not to be.

    A server that says when to come again is believed.  Which of those who were refused together comes when is chance.
    """
    if refused.retry_s:
        return refused.retry_s + random.uniform(0, max(refused.retry_s, pause_s))
    return random.uniform(0, pause_s) if isinstance(refused, errors.Unavailable) else None


def _extend(extension: Any, order: Sequence[tuple[str, bool]], equal: Mapping[str, str | int]) -> None:
    from google.protobuf import wrappers_pb2

    from api.gen.michelangelo.api import list_pb2

    for field, descending in order:
        direction = list_pb2.SORT_ORDER_DESC if descending else list_pb2.SORT_ORDER_ASC
        extension.order_by.add(field=field, dir=direction)
    for field, value in equal.items():
        criterion = extension.operation.criterion.add(field_name=field, operator=list_pb2.CRITERION_OPERATOR_EQUAL)
        wrapped = (
            wrappers_pb2.StringValue(value=value) if isinstance(value, str) else wrappers_pb2.Int64Value(value=value)
        )
        criterion.match_value.Pack(wrapped)


def refusal(error: Any, address: str) -> errors.ApiError:
    """Return the error of the tree that a failed call means."""
    code = error.code().name
    violations, reason, retry_s = _details(error)
    by_code: dict[str, type[errors.ApiError]] = {
        cls.code: cls for cls in errors.ApiError.__subclasses__() if cls.code != "INTERNAL"
    }
    if code == "UNAVAILABLE" and not reason:
        return errors.Unavailable(f"the API server at {address} does not answer: is the platform up? try `ma status`")
    refused = by_code.get(code, errors.ApiError)(error.details() or code, reason=reason, violations=violations)
    refused.retry_s = retry_s
    return refused


def _details(error: Any) -> tuple[list[errors.FieldViolation], str, float]:
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    found, reason, retry_s = [], "", 0.0
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        # Details of another answer than the one that arrived, as when something between dropped the rest of it.
        return [], "", 0.0
    for packed in status.details if status else ():
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            found = [errors.FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif packed.Unpack(retry):
            retry_s = retry.retry_delay.ToNanoseconds() / 1e9
    return found, reason, retry_s
