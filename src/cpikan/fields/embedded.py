"""EmbeddedField: any layered field behind an embedding of its coordinates."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cpikan.errors import InputError, check_type
from cpikan.fields.basis_layer import BasisLayer
from cpikan.fields.embeddings import Embedding, embedding_of
from cpikan.fields.layered import LayeredField, Through, plainly
from cpikan.fields.scaling import Domain
from cpikan.fields.start import Start
from cpikan.fields.streams import Streams


class EmbeddedField(LayeredField):
    """u(x) = field(embedding(scaled x)): ``field`` takes the nodes of the embedding as they are, in place of coordinates.

    ``domain`` is the box of u; that of ``field`` plays no part. Raises InputError for a field of other axes than the
    embedding has nodes, and for a separable one. For example

        EmbeddedField(ScaledCPIKAN([3, 12, 12, 1]), PeriodicEmbedding(2, [0]), ([-1, 0], [1, 1]))
    """

    def __init__(self, field: LayeredField, embedding: Embedding, domain: Domain = None) -> None:
        check_type("field", field, LayeredField, "a field of this package, as MLP([2, 8, 1])")
        check_type("embedding", embedding, Embedding, "a PeriodicEmbedding or FourierEmbedding")
        if not field.takes_nodes:
            raise InputError(
                f"{type(field).__name__} behind an embedding: its parts are functions of one coordinate each; give a field "
                "of another kind"
            )
        if field.dimension != embedding.width:
            raise InputError(
                f"field of {field.dimension} axes behind an embedding with {embedding.width} nodes: give widths "
                f"[{embedding.width}, ...]"
            )
        self._parts = (field, embedding)
        super().__init__((embedding.dimension, *field.widths[1:]), domain, field.networks, start=None)

    def build(self, networks: int | None) -> None:
        """Take the field and the embedding as they are."""
        del networks
        self.field, self.embedding = self._parts
        del self._parts

    @property
    def output_layer(self) -> BasisLayer:
        """Return the last layer of the field."""
        return self.field.output_layer

    def restart(self, start: Start) -> None:
        """Draw the field and the embedding anew."""
        self.field.restart(start)
        self.embedding.restart(start)

    def config(self) -> dict[str, Any]:
        """Write down the box and the embedding; the field stands beside them."""
        return {"domain": self.scaling.config(), "embedding": self.embedding.config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], field: LayeredField | None = None) -> EmbeddedField:
        """Build the field around another one."""
        box = config["domain"]
        if field is None:
            raise InputError("an embedded field needs the field behind it: load it with load_field")
        return cls(field, embedding_of(config["embedding"]), (box["lower"], box["upper"]))

    def _body(self, scaled: Tensor) -> Tensor:
        return self.field._body(self.embedding(scaled))

    def _body_streams(self, scaled: Streams, through: Through) -> Streams:
        return self.field._body_streams(self.embedding.streams(scaled, through), through)

    def _jet_streams(self, streams: Streams) -> Streams:
        return self.field._jet_streams(self.embedding.streams(streams, plainly))
