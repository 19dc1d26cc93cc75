"""Types of the words that study files contain."""

from typing import Annotated

from pydantic import Field

__all__ = ["Name", "Text", "Variable"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
