"""Whose eyes the inputs show: what their lists and files state, then what their names say, or pseudonyms of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from retigrade.grading import NOBODY, Subject
from retigrade.inputs import Input, Inputs, Unreadable
from retigrade.subjects import UNKNOWN, NamePattern, fitting_pattern, pseudonym
from retigrade.text import listing, shown


def identify(inputs: Inputs, *, pattern: NamePattern | None = None, key: bytes | None = None) -> Inputs:
    """Return the inputs with whose eye they are, read from their names where nothing else says so.

    pattern: reads names; what CSV and file state goes before it. key: replaces every patient by a pseudonym. An eye or
    a date in a name that cannot be read is unknown, and a warning of its input; a photograph that is listed for two
    patients is read for neither. What no patient is known of is noted, where one is known of others.

    Raises UsageError where the pattern matches no name.
    """
    notes = list(inputs.notes)
    items: Sequence[Input] = inputs.items
    if pattern is not None:
        pattern.check_any(PurePosixPath(item.name) for item in items)
        items = tuple(_named(items, pattern, notes))
    if key is not None:
        items = tuple(_pseudonymous(item, key) for item in items)
    items = tuple(_refuse_two_patients(items))
    nobody = [shown(item.name) for item in items if item.subject.patient is None]
    if pattern is None and len(nobody) == len(items) > 1:
        fitting = fitting_pattern([PurePosixPath(item.name) for item in items])
        if fitting is not None:
            notes.append(f"the names look as if they say whose eye it is: --name-pattern {fitting} reads them")
    if 0 < len(nobody) < len(items):
        notes.append(
            f"{len(nobody)} of {len(items)} are of no known patient, and in no list of them: {listing(nobody)}"
        )
    return replace(inputs, items=items, notes=tuple(notes))


def _named(items: Sequence[Input], pattern: NamePattern, notes: list[str]) -> Iterator[Input]:
    """Yield the inputs with what their names say where nothing else was stated."""
    unmatched, unreadable = list[str](), list[str]()
    for item in items:
        if (found := pattern.subject(PurePosixPath(item.name))) is None:
            unmatched.append(shown(item.name))
            yield item
            continue
        stated, (named, unread) = item.subject, found
        subject = Subject(stated.patient or named.patient, stated.eye or named.eye, stated.date or named.date)
        still = [name for name in unread if getattr(subject, name) is None]
        warnings = tuple(UNKNOWN[name] + shown(unread[name]) for name in still)
        unreadable += (f"{shown(item.name)}: {shown(unread[name])}" for name in still)
        yield replace(item, subject=subject, warnings=(*item.warnings, *warnings))
    if unmatched:
        notes.append(f"{len(unmatched)} names do not fit the name pattern: {listing(unmatched)}")
    if unreadable:
        notes.append(f"{len(unreadable)} names are taken as of an unknown one: {listing(unreadable, between='; ')}")


def _pseudonymous(item: Input, key: bytes) -> Input:
    patient = item.subject.patient
    if patient is None:
        return item
    return replace(item, subject=replace(item.subject, patient=pseudonym(patient, key=key)))


def _refuse_two_patients(items: Sequence[Input]) -> Iterator[Input]:
    patients: dict[str, set[str]] = {}
    for item in items:
        if item.subject.patient is not None:
            patients.setdefault(str(item), set()).add(item.subject.patient)
    for item in items:
        listed_for = sorted(patients.get(str(item), ()))
        if len(listed_for) > 1:
            names = " and ".join(shown(patient) for patient in listed_for)
            reason = f"is listed for the patients {names}: it can be of one alone, correct the list"
            yield replace(item, reader=Unreadable(reason), subject=NOBODY)
        else:
            yield item
