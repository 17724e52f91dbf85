"""The page: what a person with a browser sees."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
