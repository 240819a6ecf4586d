"""What the job file says about the data: the section [data]."""

import math
import re
from typing import Annotated, Literal, NamedTuple

import msgspec

from mpips.comparisons import IS_ONE, SIGNS
from mpips.quantities import Size

Count = Annotated[int, msgspec.Meta(ge=1)]
Pixels = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
Name = Annotated[str, msgspec.Meta(min_length=1)]
Field = Name | Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]

_COMPARISON = re.compile(r"(?P<column>.*?)\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<number>.*)")


IMAGES = ("idx", "folders")  # formats


class Label(NamedTuple):
    """How a row gets its label: the number in a column, compared with a threshold."""

    column: str
    operator: int
    threshold: float


class TestSplit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Row i of a file (from 0, a header is not counted) is a test row when i % every == offset."""

    __test__ = False  # pytest: not a test

    every: Annotated[int, msgspec.Meta(ge=2)]
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.offset >= self.every:
            raise ValueError(f"offset must be below every, which is {self.every}; got {self.offset}")


class Hashed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Features are hashed to the keys [0, 2^hash_bits)."""

    hash_bits: Annotated[int, msgspec.Meta(ge=1, le=63)]


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One-hot features: every field, a column or a cross of columns, gives a row one feature of value 1.

    With keys "dictionary" features are numbered exactly, 0..n-1, and have names.
    """

    fields: Annotated[tuple[Field, ...], msgspec.Meta(max_length=255)] = ()
    keys: Literal["dictionary"] | Hashed = "dictionary"

    def __post_init__(self) -> None:
        for i, field in enumerate(self.columns):
            if field in self.columns[:i]:
                raise ValueError(f'fields: "{self.names[i]}" is there twice')

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The columns of every field."""
        return [(field,) if isinstance(field, str) else field for field in self.fields]

    @property
    def names(self) -> list[str]:
        """The name of every field, such as "carrier×flight"."""
        return ["×".join(columns) for columns in self.columns]


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What images are made to be, and how their variants differ that are trained on.

    Parameters
    ----------
    channels, height, width : of the images in folders, which are resized to it: 1 grey, 3 colours. An IDX file has its
        own.
    shift : pixels that an image is moved by at most, along each axis.
    turn : degrees that it is turned by at most, either way.
    scale : share that it is enlarged or reduced by at most.
    mirror : whether every other is reflected, left to right.
    bend : pixels that its points are moved by besides, near ones alike: the root mean square.
    smooth : how near those are, in pixels: the standard deviation of the Gaussian that makes them alike.
    variants : how many different ones there are of each image; 0: another in every epoch.
    memory : bytes that a data server keeps variants in; what does not fit is made again.
    """

    channels: Literal[1, 3] = 1
    height: Count | None = None
    width: Count | None = None
    shift: Pixels = 0.0
    turn: Annotated[float, msgspec.Meta(ge=0, le=180)] = 0.0
    scale: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    mirror: bool = False
    bend: Pixels = 0.0
    smooth: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 4.0
    variants: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory: Size = Size(256 << 20)

    @property
    def distorts(self) -> bool:
        """Whether variants differ from the images at all."""
        return bool(self.shift or self.turn or self.scale or self.mirror or self.bend)


class DataSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which files hold the data, how their rows are read, which are test rows, and how long a batch is."""

    format: Literal["csv", "libsvm", "criteo", "idx", "folders"]
    files: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    label: Name | None = None
    features: FeatureSpec | None = None
    images: ImageSpec | None = None
    test: TestSplit | None = None
    test_files: tuple[Name, ...] = ()
    batch: Annotated[int, msgspec.Meta(ge=1, le=2**24)] = 1024
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 1
    malformed: Literal["error", "skip"] = "error"
    cache: Name | None = None

    def __post_init__(self) -> None:
        if self.test is not None and self.test_files:
            raise ValueError("test and test_files exclude each other: keep one")
        if self.has_images != (self.images is not None):
            if self.has_images:
                msgspec.structs.force_setattr(self, "images", ImageSpec())
            else:
                raise ValueError('images: is for the formats "idx" and "folders"')
        if self.has_images:
            self._check_images()
            return
        if self.format == "csv":
            if self.label is None:
                raise ValueError('label is missing: a column, or a comparison such as "delay > 15"')
            if self.features is None or not self.features.fields:
                raise ValueError("features.fields is missing: the columns that are features")
            self.label_rule  # noqa: B018  a label that cannot be understood is refused here
        elif self.label is not None:
            raise ValueError(f'label: format "{self.format}" has its label at the start of a line; leave it out')
        if self.format == "libsvm" and self.features is not None:
            raise ValueError('features: format "libsvm" has its own keys; leave features out')

    def _check_images(self) -> None:
        for name, value in (("label", self.label), ("features", self.features), ("cache", self.cache)):
            if value is not None:
                raise ValueError(f'{name}: is not for format "{self.format}"; leave it out')
        assert self.images is not None
        sized = self.images.height is not None and self.images.width is not None
        if self.format == "folders" and not sized:
            raise ValueError("images.height and images.width are missing: the size that images are brought to")
        if self.format == "idx" and (self.images.height or self.images.width or self.images.channels != 1):
            raise ValueError("images: an IDX file has its own size and one channel; leave them out")

    @property
    def has_images(self) -> bool:
        """Whether the rows are images."""
        return self.format in IMAGES

    @property
    def has_names(self) -> bool:
        """Whether features are numbered by a dictionary of their names."""
        return (
            not self.has_images
            and self.format != "libsvm"
            and (self.features is None or self.features.keys == "dictionary")
        )

    @property
    def label_rule(self) -> Label:
        """The label of a csv file, understood."""
        text = (self.label or "").strip()
        match = _COMPARISON.fullmatch(text)
        if match is None:
            return Label(text, IS_ONE, 0.0)
        try:
            threshold = float(match["number"])
        except ValueError:
            threshold = math.nan
        if not match["column"] or not math.isfinite(threshold):
            raise ValueError(f'label "{text}" is neither a column nor a comparison such as "delay > 15"')
        return Label(match["column"], SIGNS[match["operator"]], threshold)
