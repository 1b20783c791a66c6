from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    CODE_REGION_UNAVAILABLE: _ClassVar[Code]
    CODE_REFUSED: _ClassVar[Code]
    CODE_BUDGET: _ClassVar[Code]
    CODE_PLAN: _ClassVar[Code]
    CODE_UPDATE_NORM: _ClassVar[Code]
    CODE_NOISE_SCALE: _ClassVar[Code]
    CODE_NOISE_SHAPE: _ClassVar[Code]
    CODE_NOISE_GRID: _ClassVar[Code]
    CODE_NOISE_OVERLAP: _ClassVar[Code]
    CODE_NOISE_FLOOR: _ClassVar[Code]
    CODE_CANARY_SENSITIVITY: _ClassVar[Code]
    CODE_CANARY_NOISE: _ClassVar[Code]
    CODE_CANARY_NOT_FINITE: _ClassVar[Code]
    CODE_CANARY_DRAWS: _ClassVar[Code]

class Identity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IDENTITY_UNSPECIFIED: _ClassVar[Identity]
    IDENTITY_PHYSICAL: _ClassVar[Identity]
    IDENTITY_RECORDING: _ClassVar[Identity]
CODE_UNSPECIFIED: Code
CODE_REGION_UNAVAILABLE: Code
CODE_REFUSED: Code
CODE_BUDGET: Code
CODE_PLAN: Code
CODE_UPDATE_NORM: Code
CODE_NOISE_SCALE: Code
CODE_NOISE_SHAPE: Code
CODE_NOISE_GRID: Code
CODE_NOISE_OVERLAP: Code
CODE_NOISE_FLOOR: Code
CODE_CANARY_SENSITIVITY: Code
CODE_CANARY_NOISE: Code
CODE_CANARY_NOT_FINITE: Code
CODE_CANARY_DRAWS: Code
IDENTITY_UNSPECIFIED: Identity
IDENTITY_PHYSICAL: Identity
IDENTITY_RECORDING: Identity

class Greeting(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, versions: _Optional[_Iterable[int]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "epoch", "size")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    version: int
    epoch: int
    size: int
    def __init__(self, version: _Optional[int] = ..., epoch: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Task(_message.Message):
    __slots__ = ("plan", "round")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    plan: PlanOffer
    round: Round
    def __init__(self, plan: _Optional[_Union[PlanOffer, _Mapping]] = ..., round: _Optional[_Union[Round, _Mapping]] = ...) -> None: ...

class PlanOffer(_message.Message):
    __slots__ = ("plan", "size")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    size: int
    def __init__(self, plan: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    def __init__(self, plan: _Optional[bytes] = ...) -> None: ...

class PlanDocument(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class PlanAnswer(_message.Message):
    __slots__ = ("plan", "approved", "code")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    APPROVED_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    approved: bool
    code: Code
    def __init__(self, plan: _Optional[bytes] = ..., approved: _Optional[bool] = ..., code: _Optional[_Union[Code, str]] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("plan", "round", "arrays_sha256", "size")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    round: int
    arrays_sha256: bytes
    size: int
    def __init__(self, plan: _Optional[bytes] = ..., round: _Optional[int] = ..., arrays_sha256: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class ArraysRequest(_message.Message):
    __slots__ = ("arrays_sha256", "offset")
    ARRAYS_SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    arrays_sha256: bytes
    offset: int
    def __init__(self, arrays_sha256: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("sha256", "offset", "content")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    offset: int
    content: bytes
    def __init__(self, sha256: _Optional[bytes] = ..., offset: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("plan", "round", "code")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    round: int
    code: Code
    def __init__(self, plan: _Optional[bytes] = ..., round: _Optional[int] = ..., code: _Optional[_Union[Code, str]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("plan", "round", "sha256", "size", "entry", "seq", "inclusion", "head")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    INCLUSION_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    round: int
    sha256: bytes
    size: int
    entry: bytes
    seq: int
    inclusion: _containers.RepeatedScalarFieldContainer[bytes]
    head: Head
    def __init__(self, plan: _Optional[bytes] = ..., round: _Optional[int] = ..., sha256: _Optional[bytes] = ..., size: _Optional[int] = ..., entry: _Optional[bytes] = ..., seq: _Optional[int] = ..., inclusion: _Optional[_Iterable[bytes]] = ..., head: _Optional[_Union[Head, _Mapping]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("checkpoint", "consistency", "statements", "close")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    statements: _containers.RepeatedCompositeFieldContainer[Statement]
    close: bytes
    def __init__(self, checkpoint: _Optional[bytes] = ..., consistency: _Optional[_Iterable[bytes]] = ..., statements: _Optional[_Iterable[_Union[Statement, _Mapping]]] = ..., close: _Optional[bytes] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("seq", "content", "proof")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    seq: int
    content: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, seq: _Optional[int] = ..., content: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("offset", "receipt")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    offset: int
    receipt: Receipt
    def __init__(self, offset: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("plan", "round", "entry", "sha256", "size", "signature", "cosigned")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    round: int
    entry: bytes
    sha256: bytes
    size: int
    signature: bytes
    cosigned: bytes
    def __init__(self, plan: _Optional[bytes] = ..., round: _Optional[int] = ..., entry: _Optional[bytes] = ..., sha256: _Optional[bytes] = ..., size: _Optional[int] = ..., signature: _Optional[bytes] = ..., cosigned: _Optional[bytes] = ...) -> None: ...

class Cosignature(_message.Message):
    __slots__ = ("cosigned",)
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    cosigned: bytes
    def __init__(self, cosigned: _Optional[bytes] = ...) -> None: ...

class Declaration(_message.Message):
    __slots__ = ("roster", "identity")
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    roster: int
    identity: Identity
    def __init__(self, roster: _Optional[int] = ..., identity: _Optional[_Union[Identity, str]] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class Now(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    def __init__(self, seconds: _Optional[int] = ...) -> None: ...

class SigningRequest(_message.Message):
    __slots__ = ("token", "request", "node", "officer")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    OFFICER_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    request: bytes
    node: bytes
    officer: bytes
    def __init__(self, token: _Optional[bytes] = ..., request: _Optional[bytes] = ..., node: _Optional[bytes] = ..., officer: _Optional[bytes] = ...) -> None: ...

class Enrolled(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...
