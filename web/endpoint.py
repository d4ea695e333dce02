"""A resource as it is served: what its requests must fit, and where they may lead."""

from typing import NamedTuple

from db.resources import Resource, parents
from web.fields import Types, types


class Endpoint(NamedTuple):
    """A resource, and what its requests must fit."""

    resource: Resource
    types: Types
    parents: dict[str, str]  # the fields that hold an id of another resource, and which one

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.resource.name

    @property
    def id(self) -> str:
        """The id's place in a path; text may have slashes in it."""
        return "{id:path}" if self.resource.id.kind in ("text", "enum") else "{id}"


def endpoints(resources: dict[str, Resource]) -> list[Endpoint]:
    """Return an endpoint for each resource."""
    return [
        Endpoint(each, types(each), parents(resources, name)) for name, each in resources.items()
    ]
