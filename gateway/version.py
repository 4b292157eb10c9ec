"""The version that runs, from the installed package."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("entitlement-gateway")
