"""The page: what a person with a browser sees."""

from fastapi import APIRouter

from retigrade.serve.page import entrance, pages, worklist
from retigrade.serve.page.entrance import problem_page

__all__ = ["problem_page", "router"]

router = APIRouter(include_in_schema=False)
for _part in (entrance, pages, worklist):
    router.include_router(_part.router)
