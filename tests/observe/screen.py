"""What a terminal shows after what was written to it: enough of one to read our own painting back."""

from __future__ import annotations

import re

import attrs

_TOKEN = re.compile(r"\x1b\[(?P<mode>\??)(?P<number>\d*)[\d;]*(?P<command>[A-Za-z])|(?P<char>[\s\S])")


@attrs.define
class Screen:
    """Lines without an end below, and a cursor. Anything that it does not know is an error."""

    lines: list[str] = attrs.field(factory=lambda: [""])
    row: int = 0
    column: int = 0
    has_cursor: bool = True

    def feed(self, text: str) -> None:
        """Take what is written."""
        assert "\x1b" not in _TOKEN.sub("", text)
        for found in _TOKEN.finditer(text):
            if (char := found["char"]) is not None:
                self._put(char)
            else:
                self._obey(found["mode"] + found["command"], int(found["number"] or 0))

    def shown(self) -> list[str]:
        """The lines down to the last one that is not empty."""
        lines = [line.rstrip() for line in self.lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def _put(self, char: str) -> None:
        if char == "\n":
            self.row += 1
            self.column = 0
            if self.row == len(self.lines):
                self.lines.append("")
        elif char == "\r":
            self.column = 0
        else:
            assert char.isprintable(), repr(char)
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1

    def _obey(self, command: str, number: int) -> None:
        match command:
            case "A":
                self.row = max(0, self.row - max(1, number))
            case "K":
                assert number == 2
                self.lines[self.row] = ""
            case "J":
                assert number == 2
                self.lines = [""] * len(self.lines)
            case "H":
                self.row = self.column = 0
            case "?h" | "?l":
                assert number == 25
                self.has_cursor = command == "?h"
            case "m":
                pass
            case _:
                raise AssertionError(f"unknown command {command}")
