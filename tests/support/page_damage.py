"""Structural damage to LMDB's data file: functions that change its pages, but nothing inside a key or a value."""

from __future__ import annotations

import struct

PAGE = 4096
BRANCH, LEAF, OVERFLOW = 1, 2, 4
# The offsets and sizes of the fields of a meta page, and of the records of its two trees.
META_FIELDS = [(16, 4), (20, 4), (24, 8), (32, 8), (136, 8), (144, 8)]
RECORD_FIELDS = [(0, 4), (4, 2), (6, 2), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8)]
HEAD_FIELDS = [(0, 8), (8, 2), (10, 2), (12, 2), (14, 2)]
NODE_FIELDS = [(0, 2), (2, 2), (4, 2), (6, 2)]


def extreme(rng, size, before):
    """A value that is out of range for a field, or a flipped bit."""
    top = 1 << 8 * size
    value = rng.choice([
        0, 1, 2, 3, 7, top - 1, top // 2, top // 2 - 1, top // 4, before + 1, before - 1, before + 2, before - 2,
        before ^ 1 << rng.randrange(8 * size), rng.randrange(top),
    ])
    return value % top


def set_field(rng, data, at, size):
    before = int.from_bytes(data[at : at + size], "little")
    data[at : at + size] = extreme(rng, size, before).to_bytes(size, "little")


def pages_like(data, *kinds):
    """The numbers of all pages that have one of these flags."""
    found = []
    for number in range(2, len(data) // PAGE):
        own, _, flags = struct.unpack_from("=QHH", data, number * PAGE)
        if own == number and flags in kinds:
            found.append(number)
    return found


def whole_pages(data):
    """The numbers of all pages, without overflow pages, of which one may be exchanged unnoticed."""
    found, inside = [], 0
    for number in range(len(data) // PAGE):
        own, _, flags, pages = struct.unpack_from("=QHHI", data, number * PAGE)
        if number >= inside and own == number and flags == OVERFLOW and pages > 1:
            inside = number + pages
        if number >= inside:
            found.append(number)
    return found


def nodes_of(data, number):
    """The offsets of the nodes of a page."""
    flags, lower = struct.unpack_from("=HH", data, number * PAGE + 10)
    offsets = struct.unpack_from(f"={max(0, lower - 16) // 2}H", data, number * PAGE + 16) if lower <= PAGE else ()
    return flags, [number * PAGE + offset for offset in offsets if offset + 8 <= PAGE]


def change_meta_field(rng, data, olds):
    number = rng.randrange(2)
    records = [(base + at, size) for base in (40, 88) for at, size in RECORD_FIELDS]
    at, size = rng.choice([*META_FIELDS, *records, *HEAD_FIELDS])
    set_field(rng, data, number * PAGE + at, size)


def change_header(rng, data, olds):
    number = rng.choice(pages_like(data, BRANCH, LEAF, OVERFLOW))
    at, size = rng.choice(HEAD_FIELDS)
    set_field(rng, data, number * PAGE + at, size)


def change_node(rng, data, olds):
    """Change the header of a node, a pointer to a node, or the page number of a large value."""
    number = rng.choice(pages_like(data, BRANCH, LEAF))
    flags, nodes = nodes_of(data, number)
    at = rng.choice(nodes)
    key_size = struct.unpack_from("=H", data, at + 6)[0]
    if rng.random() < 0.2:
        set_field(rng, data, number * PAGE + 16 + 2 * rng.randrange(len(nodes)), 2)
    elif flags == LEAF and data[at + 4] & 1 and rng.random() < 0.5:
        set_field(rng, data, at + 8 + key_size, 8)
    else:
        offset, size = rng.choice(NODE_FIELDS)
        set_field(rng, data, at + offset, size)


def change_record(rng, data, olds):
    """The record of a database."""
    number = rng.choice([page for page in pages_like(data, LEAF) if b"values" in data[page * PAGE : (page + 1) * PAGE]])
    at = rng.choice(nodes_of(data, number)[1])
    offset, size = rng.choice(RECORD_FIELDS)
    set_field(rng, data, at + 8 + data[at + 6] + offset, size)


def exchange_pages(rng, data, olds):
    one, other = (slice(number * PAGE, (number + 1) * PAGE) for number in rng.sample(whole_pages(data), 2))
    data[one], data[other] = data[other], data[one]


def put_back(rng, data, olds, pages):
    old = rng.choice(olds)
    for number in pages:
        part = old[number * PAGE : (number + 1) * PAGE]
        if len(part) == PAGE:
            data[number * PAGE : (number + 1) * PAGE] = part


def put_old_pages_back(rng, data, olds):
    parts = {number: slice(number * PAGE, (number + 1) * PAGE) for number in whole_pages(data)[2:]}
    changed = [number for number, part in parts.items() if any(data[part] != old[part] for old in olds)]
    put_back(rng, data, olds, rng.sample(changed, min(len(changed), rng.choice((1, 1, 2, 10)))))


def put_old_meta_back(rng, data, olds):
    put_back(rng, data, olds, rng.choice([(0,), (1,), (0, 1)]))


def point_to_old_tree(rng, data, olds):
    """Give the newest meta page the free list, the list of databases, or the file size of an older one."""
    old = rng.choice(olds)
    numbers = [struct.unpack_from("=Q", data, at * PAGE + 144)[0] for at in (0, 1)]
    newest, source = numbers.index(max(numbers)) * PAGE, rng.randrange(2) * PAGE
    part = rng.choice([slice(40, 88), slice(88, 136), slice(136, 144), slice(40, 136), slice(40, 144)])
    data[newest + part.start : newest + part.stop] = old[source + part.start : source + part.stop]


def zero_page(rng, data, olds):
    number = rng.randrange(len(data) // PAGE)
    data[number * PAGE : (number + 1) * PAGE] = bytes(PAGE)


def truncate(rng, data, olds):
    del data[rng.choice([rng.randrange(len(data)), rng.randrange(len(data) // PAGE) * PAGE]) :]


def overwrite_bytes(rng, data, olds):
    """Overwrite bytes, also inside a value."""
    at = rng.randrange(len(data))
    part = rng.randbytes(rng.choice((1, 2, 8, 100, PAGE)))
    data[at : at + len(part)] = part[: len(data) - at]


def several(rng, data, olds):
    for _ in range(rng.randrange(2, 5)):
        damage = rng.choice([change_meta_field, change_header, change_node, change_record, exchange_pages])
        try:
            damage(rng, data, olds)
        except (IndexError, ValueError, struct.error):
            return  # The first meta page is useless then.


DAMAGES = [change_meta_field, change_header, change_node, change_node, change_record, exchange_pages,
           put_old_pages_back, put_old_meta_back, point_to_old_tree, zero_page, truncate, overwrite_bytes, several]
